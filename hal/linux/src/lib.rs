//! Cameras of a Linux board: V4L2 devices, and video files through ffmpeg.
#![forbid(unsafe_code)]
