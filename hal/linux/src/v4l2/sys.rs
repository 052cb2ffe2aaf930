//! The part of `<linux/videodev2.h>` that a camera needs: structures, request numbers, and one safe
//! function around each ioctl. The only `unsafe` code of the cameras.
//!
//! Written out by hand rather than generated: bindgen would need libclang on every machine that
//! builds Lookback, and the kernel never changes these layouts (they are its binary interface).
#![allow(unsafe_code)]

use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

pub const BUF_TYPE_CAPTURE: u32 = 1;
pub const BUF_TYPE_OUTPUT: u32 = 2;
pub const MEMORY_MMAP: u32 = 1;
pub const FIELD_NONE: u32 = 1;

pub const CAP_CAPTURE: u32 = 0x1;
pub const CAP_CAPTURE_MPLANE: u32 = 0x1000;
pub const CAP_STREAMING: u32 = 0x0400_0000;
pub const CAP_DEVICE_CAPS: u32 = 0x8000_0000;

pub const BUF_FLAG_ERROR: u32 = 0x40;
pub const BUF_FLAG_TIMESTAMP_MASK: u32 = 0xe000;
pub const BUF_FLAG_TIMESTAMP_MONOTONIC: u32 = 0x2000;

pub const FRMSIZE_DISCRETE: u32 = 1;
pub const FRMIVAL_DISCRETE: u32 = 1;

pub const EVENT_SOURCE_CHANGE: u32 = 5;
pub const EVENT_CHANGED_RESOLUTION: u32 = 0x1;

pub const CTRL_TYPE_INTEGER: u32 = 1;
pub const CTRL_TYPE_BOOLEAN: u32 = 2;
pub const CTRL_TYPE_MENU: u32 = 3;
pub const CTRL_FLAG_DISABLED: u32 = 0x1;
pub const CTRL_FLAG_READ_ONLY: u32 = 0x4;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Capability {
    pub driver: [u8; 16],
    pub card: [u8; 32],
    pub bus_info: [u8; 32],
    pub version: u32,
    pub capabilities: u32,
    pub device_caps: u32,
    reserved: [u32; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct FmtDesc {
    pub index: u32,
    pub type_: u32,
    pub flags: u32,
    pub description: [u8; 32],
    pub pixelformat: u32,
    mbus_code: u32,
    reserved: [u32; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct PixFormat {
    pub width: u32,
    pub height: u32,
    pub pixelformat: u32,
    pub field: u32,
    pub bytesperline: u32,
    pub sizeimage: u32,
    colorspace: u32,
    priv_: u32,
    flags: u32,
    ycbcr_enc: u32,
    quantization: u32,
    xfer_func: u32,
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Format {
    pub type_: u32,
    // The union that follows holds pointers in other variants, and is aligned for them.
    padding: u32,
    pub pix: PixFormat,
    rest_of_union: [u8; 152],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct FrmSizeEnum {
    pub index: u32,
    pub pixel_format: u32,
    pub type_: u32,
    /// Discrete: width, height. Otherwise min, max and step of the width, then of the height.
    pub sizes: [u32; 6],
    reserved: [u32; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct FrmIvalEnum {
    pub index: u32,
    pub pixel_format: u32,
    pub width: u32,
    pub height: u32,
    pub type_: u32,
    /// Fractions of seconds. Discrete: the interval. Otherwise the shortest, the longest and the step.
    pub intervals: [[u32; 2]; 3],
    reserved: [u32; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct QueryControl {
    pub id: u32,
    pub type_: u32,
    pub name: [u8; 32],
    pub minimum: i32,
    pub maximum: i32,
    pub step: i32,
    pub default: i32,
    pub flags: u32,
    reserved: [u32; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct QueryMenu {
    pub id: u32,
    pub index: u32,
    pub name: [u8; 32],
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct ControlValue {
    pub id: u32,
    pub value: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct EventSubscription {
    pub type_: u32,
    id: u32,
    flags: u32,
    reserved: [u32; 5],
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Event {
    pub type_: u32,
    // The union that follows holds a 64-bit number in another variant, and is aligned for it.
    padding: u32,
    /// Of `EVENT_SOURCE_CHANGE`: what changed.
    pub changes: u32,
    rest_of_union: [u32; 15],
    pending: u32,
    sequence: u32,
    timestamp: [i64; 2],
    id: u32,
    reserved: [u32; 8],
}

/// Handed from one request to the other, never looked into.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DvTimings([u32; 33]);

#[repr(C)]
#[derive(Clone, Copy)]
pub struct StreamParm {
    pub type_: u32,
    capability: u32,
    capture_mode: u32,
    /// Seconds a frame, as a fraction.
    pub time_per_frame: [u32; 2],
    rest_of_union: [u32; 46],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RequestBuffers {
    pub count: u32,
    pub type_: u32,
    pub memory: u32,
    capabilities: u32,
    flags_and_reserved: [u8; 4],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Buffer {
    pub index: u32,
    pub type_: u32,
    pub bytesused: u32,
    pub flags: u32,
    pub field: u32,
    pub timestamp: libc::timeval,
    timecode: [u32; 4],
    pub sequence: u32,
    pub memory: u32,
    /// The union `m`: with `MEMORY_MMAP`, its first half is the offset to map.
    pub offset: u32,
    rest_of_union: u32,
    pub length: u32,
    reserved2: u32,
    request_fd: u32,
}

// The sizes are part of the request numbers: a wrong layout would be another, unknown request.
// They hold for 64-bit targets, the only ones that Lookback is built for.
const _: () = {
    assert!(size_of::<Capability>() == 104);
    assert!(size_of::<FmtDesc>() == 64);
    assert!(size_of::<Format>() == 208);
    assert!(size_of::<FrmSizeEnum>() == 44);
    assert!(size_of::<FrmIvalEnum>() == 52);
    assert!(size_of::<QueryControl>() == 68);
    assert!(size_of::<QueryMenu>() == 44);
    assert!(size_of::<ControlValue>() == 8);
    assert!(size_of::<EventSubscription>() == 32);
    assert!(size_of::<Event>() == 136);
    assert!(size_of::<DvTimings>() == 132);
    assert!(size_of::<StreamParm>() == 204);
    assert!(size_of::<RequestBuffers>() == 20);
    assert!(size_of::<Buffer>() == 88);
};

/// A structure of integers only, as every one above is.
///
/// # Safety
/// All zeros must be a valid value, and so must whatever the kernel writes into it.
unsafe trait Plain: Copy {}
// SAFETY: integers and arrays of integers, like all of these; every bit pattern is valid.
unsafe impl Plain for Capability {}
// SAFETY: as above.
unsafe impl Plain for FmtDesc {}
// SAFETY: as above.
unsafe impl Plain for Format {}
// SAFETY: as above.
unsafe impl Plain for FrmSizeEnum {}
// SAFETY: as above.
unsafe impl Plain for FrmIvalEnum {}
// SAFETY: as above.
unsafe impl Plain for QueryControl {}
// SAFETY: as above.
unsafe impl Plain for QueryMenu {}
// SAFETY: as above.
unsafe impl Plain for ControlValue {}
// SAFETY: as above.
unsafe impl Plain for EventSubscription {}
// SAFETY: as above.
unsafe impl Plain for Event {}
// SAFETY: as above.
unsafe impl Plain for DvTimings {}
// SAFETY: as above.
unsafe impl Plain for StreamParm {}
// SAFETY: as above.
unsafe impl Plain for RequestBuffers {}
// SAFETY: as above.
unsafe impl Plain for Buffer {}
// SAFETY: an integer.
unsafe impl Plain for libc::c_int {}

/// A zeroed structure, to be filled and handed to one of the functions below.
#[allow(private_bounds)]
pub fn zeroed<T: Plain>() -> T {
    // SAFETY: what `Plain` promises.
    unsafe { std::mem::zeroed() }
}

const READ: u32 = 2;
const WRITE: u32 = 1;

/// The number that `_IOC` of `<asm-generic/ioctl.h>` builds (x86 and Arm agree).
const fn request<T>(direction: u32, number: u32) -> u32 {
    direction << 30 | (size_of::<T>() as u32) << 16 | (b'V' as u32) << 8 | number
}

/// Declares a safe function for one request that takes one structure in and out.
macro_rules! request {
    ($(#[$doc:meta])* $name:ident, $direction:expr, $number:expr, $type:ty) => {
        $(#[$doc])*
        pub fn $name(device: BorrowedFd<'_>, argument: &mut $type) -> io::Result<()> {
            call(device, request::<$type>($direction, $number), argument)
        }
    };
}

request!(/// What the device is.
    query_capability, READ, 0, Capability);
request!(/// The format number `index`; `EINVAL` past the last.
    enumerate_format, READ | WRITE, 2, FmtDesc);
request!(/// Asks for a format; the driver answers with the one it will use.
    set_format, READ | WRITE, 5, Format);
request!(/// Asks for buffers; the driver answers with how many there are. Zero frees them.
    request_buffers, READ | WRITE, 8, RequestBuffers);
request!(/// Where buffer `index` is and how long.
    query_buffer, READ | WRITE, 9, Buffer);
request!(/// Gives a buffer to the driver.
    queue_buffer, READ | WRITE, 15, Buffer);
request!(/// Takes the oldest filled buffer; `EAGAIN` if there is none.
    dequeue_buffer, READ | WRITE, 17, Buffer);
request!(/// Starts the stream of a buffer type.
    stream_on, WRITE, 18, libc::c_int);
request!(/// Stops it; all buffers return to the program.
    stream_off, WRITE, 19, libc::c_int);
request!(/// Asks for a frame interval; the driver answers with the nearest.
    set_stream_parameters, READ | WRITE, 22, StreamParm);
request!(/// The value of a control.
    get_control, READ | WRITE, 27, ControlValue);
request!(/// Sets a control; the driver answers with the value that it took.
    set_control, READ | WRITE, 28, ControlValue);
request!(/// What control `id` is; `EINVAL` if the device lacks it.
    query_control, READ | WRITE, 36, QueryControl);
request!(/// The entry `index` of a menu; `EINVAL` if it is none of the menu's.
    query_menu, READ | WRITE, 37, QueryMenu);
request!(/// The frame size number `index` of a format; `EINVAL` past the last.
    enumerate_frame_size, READ | WRITE, 74, FrmSizeEnum);
request!(/// The frame interval number `index` of a format and size; `EINVAL` past the last.
    enumerate_frame_interval, READ | WRITE, 75, FrmIvalEnum);
request!(/// Sets the timings of the signal of an input.
    set_dv_timings, READ | WRITE, 87, DvTimings);
request!(/// Takes the oldest event; `ENOENT` if there is none.
    dequeue_event, READ, 89, Event);
request!(/// Asks for events of a type.
    subscribe_event, WRITE, 90, EventSubscription);
request!(/// The timings of the signal that there is; `ENOLINK` if there is none, `ENOTTY` or `ENODATA` on
    /// an input that has no such thing.
    query_dv_timings, READ, 99, DvTimings);

fn call<T: Plain>(device: BorrowedFd<'_>, request: u32, argument: &mut T) -> io::Result<()> {
    loop {
        // SAFETY: the request number encodes the size of `T`, so the kernel reads and writes at
        // most that many bytes of `argument`, which is valid for both; the result is a valid `T`.
        let result = unsafe {
            libc::ioctl(device.as_raw_fd(), request.into(), std::ptr::from_mut(argument))
        };
        if result != -1 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The memory of one of the driver's buffers.
pub struct Mapping {
    start: *const u8,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to the thread that made it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the `len` bytes that `query_buffer` said lie at `offset`, for reading. The driver
    /// refuses any other offset and length.
    pub fn new(device: BorrowedFd<'_>, offset: u32, len: u32) -> io::Result<Self> {
        let len = len as usize;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                device,
                offset.into(),
            )?
        };
        Ok(Self { start: start.cast_const().cast(), len })
    }

    /// A copy of the first `len` bytes (of all, if there are fewer). A copy, never a slice: the
    /// driver, or another program that writes to a loop-back device, may change them meanwhile.
    pub fn copy(&self, len: usize) -> Vec<u8> {
        let len = len.min(self.len);
        let mut bytes = Vec::with_capacity(len);
        // SAFETY: the mapping is `self.len` bytes long and lives as long as `self`; the vector has
        // room for `len` and all of them are written before its length is set.
        unsafe {
            std::ptr::copy_nonoverlapping(self.start, bytes.as_mut_ptr(), len);
            bytes.set_len(len);
        }
        bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped, and nothing borrows from it.
        // Unmapping a valid mapping cannot fail, and nothing could be done if it did.
        let _ = unsafe { rustix::mm::munmap(self.start.cast_mut().cast::<c_void>(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_numbers_are_those_of_the_kernel_header() {
        assert_eq!(request::<Capability>(READ, 0), 0x8068_5600);
        assert_eq!(request::<FmtDesc>(READ | WRITE, 2), 0xc040_5602);
        assert_eq!(request::<Format>(READ | WRITE, 5), 0xc0d0_5605);
        assert_eq!(request::<Buffer>(READ | WRITE, 17), 0xc058_5611);
        assert_eq!(request::<libc::c_int>(WRITE, 18), 0x4004_5612);
        assert_eq!(request::<StreamParm>(READ | WRITE, 22), 0xc0cc_5616);
        assert_eq!(request::<FrmSizeEnum>(READ | WRITE, 74), 0xc02c_564a);
        assert_eq!(request::<FrmIvalEnum>(READ | WRITE, 75), 0xc034_564b);
        assert_eq!(request::<DvTimings>(READ, 99), 0x8084_5663);
        assert_eq!(request::<Event>(READ, 89), 0x8088_5659);
        assert_eq!(request::<EventSubscription>(WRITE, 90), 0x4020_565a);
        assert_eq!(std::mem::offset_of!(Event, changes), 8);
        assert_eq!(request::<ControlValue>(READ | WRITE, 28), 0xc008_561c);
        assert_eq!(request::<QueryControl>(READ | WRITE, 36), 0xc044_5624);
        assert_eq!(request::<QueryMenu>(READ | WRITE, 37), 0xc02c_5625);
    }
}
