//! The truth of the benchmarks, from the files in which their authors give it.
//!
//! All of them number frames from 0. Whether the end frame of an interval belongs to it differs
//! between the papers that report results, by less than 0.1 points: [`EndFrame`] is the switch.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Whether the end frame of an interval is anomalous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndFrame {
    /// Half-open: VadCLIP, XDVioDet, VERA.
    Excluded,
    /// Closed: LAVAD, EventVAD, UBnormal.
    Included,
}

/// The truth of one video.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// Name of the video, without folder and extension.
    pub name: String,
    /// The benchmark's word for what happens; `Normal` if nothing does.
    pub class: String,
    /// Anomalous intervals: first and last frame as the file gives them, in order.
    pub intervals: Vec<(u64, u64)>,
}

impl Annotation {
    /// Whether the video is anomalous.
    pub fn anomalous(&self) -> bool {
        !self.intervals.is_empty()
    }

    /// The truth of each of `frames` frames. What the file says about frames beyond is left out.
    pub fn truth(&self, frames: usize, end: EndFrame) -> Vec<bool> {
        let mut truth = vec![false; frames];
        let beyond = usize::from(end == EndFrame::Included);
        for &(first, last) in &self.intervals {
            let clip = |frame: u64| usize::try_from(frame).unwrap_or(usize::MAX).min(frames);
            let (first, last) = (clip(first), clip(last).saturating_add(beyond).min(frames));
            truth.get_mut(first..last).unwrap_or_default().fill(true);
        }
        truth
    }
}

/// An annotation file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnnotationError {
    /// It cannot be read.
    #[error("cannot read the annotations in '{}': {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not what the benchmark's format asks for.
    #[error("'{}', line {line}: {what}; is this the file that the benchmark came with?", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// There is nothing in it.
    #[error("'{}' holds no annotation", path.display())]
    Empty {
        /// The file or folder.
        path: PathBuf,
    },
}

/// UCF-Crime's `Temporal_Anomaly_Annotation_for_Testing_Videos.txt`, one video a line: name, class,
/// and two intervals, -1 where there is none.
///
/// # Errors
/// [`AnnotationError`] names the line.
pub fn ucf_crime(file: &Path) -> Result<Vec<Annotation>, AnnotationError> {
    lines(file, |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, class, numbers @ ..] = fields.as_slice() else {
            return Err("it needs a name and a class".to_owned());
        };
        if numbers.is_empty() || !numbers.len().is_multiple_of(2) {
            return Err(format!("{} numbers are not intervals", numbers.len()));
        }
        let numbers: Vec<i64> = numbers
            .iter()
            .map(|n| n.parse().map_err(|_| format!("'{n}' is not a frame number")))
            .collect::<Result<_, _>>()?;
        let known = numbers.chunks(2).filter(|pair| pair[0] >= 0 && pair[1] >= 0);
        let intervals = known.map(|pair| ordered(pair[0] as u64, pair[1] as u64));
        Ok(Annotation {
            name: without_extension(name).to_owned(),
            class: (*class).to_owned(),
            intervals: intervals.collect::<Result<_, _>>()?,
        })
    })
}

/// XD-Violence's `annotations.txt`: the anomalous test videos, one a line: name, then pairs of
/// frames. A video that is not in it is normal; its name says `label_A`.
///
/// # Errors
/// [`AnnotationError`] names the line.
pub fn xd_violence(file: &Path) -> Result<Vec<Annotation>, AnnotationError> {
    lines(file, |line| {
        let mut fields = line.split_whitespace();
        let name = fields.next().ok_or("it needs a name")?;
        let numbers: Vec<u64> = fields
            .map(|n| n.parse().map_err(|_| format!("'{n}' is not a frame number")))
            .collect::<Result<_, _>>()?;
        if !numbers.len().is_multiple_of(2) {
            return Err(format!("{} numbers are not intervals", numbers.len()));
        }
        let intervals = numbers.chunks(2).map(|pair| ordered(pair[0], pair[1]));
        let name = without_extension(name);
        Ok(Annotation {
            name: name.to_owned(),
            class: xd_class(name).to_owned(),
            intervals: intervals.collect::<Result<_, _>>()?,
        })
    })
}

/// The class in the name of a video of XD-Violence, `…_label_B4-0-0`; `Normal` for `A`.
pub fn xd_class(name: &str) -> &str {
    match name.rsplit_once("label_").map_or("", |(_, label)| label) {
        label if label.starts_with('A') => "Normal",
        "" => "unknown",
        label => label,
    }
}

/// UBnormal: below `folder` lies, for each video, a folder `{video}_annotations` with the file
/// `{video}_tracks.txt`: object, first and last frame a line, as numbers of any form, both frames
/// included. A video whose file is missing or empty is normal.
///
/// # Errors
/// [`AnnotationError`] names the file and the line.
pub fn ubnormal(folder: &Path) -> Result<Vec<Annotation>, AnnotationError> {
    const ENDING: &str = "_annotations";
    let mut found = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let read = |source| AnnotationError::Read { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if !path.is_dir() {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match name.strip_suffix(ENDING) {
                Some(video) => found.push(ubnormal_video(&path, video)?),
                None => folders.push(path),
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    if found.is_empty() {
        return Err(AnnotationError::Empty { path: folder.to_owned() });
    }
    Ok(found)
}

fn ubnormal_video(folder: &Path, video: &str) -> Result<Annotation, AnnotationError> {
    let file = folder.join(format!("{video}_tracks.txt"));
    let mut intervals = match file.exists() {
        false => vec![],
        true => tracks(&file)?,
    };
    intervals.sort_unstable();
    let class = if intervals.is_empty() { "Normal" } else { "Abnormal" };
    Ok(Annotation { name: video.to_owned(), class: class.to_owned(), intervals })
}

fn tracks(file: &Path) -> Result<Vec<(u64, u64)>, AnnotationError> {
    let one = |line: &str| {
        let numbers: Vec<f64> = line
            .split(',')
            .map(|n| n.trim().parse().map_err(|_| format!("'{n}' is not a number")))
            .collect::<Result<_, _>>()?;
        match numbers.as_slice() {
            [_, first, last] if *first >= 0.0 => ordered(*first as u64, *last as u64),
            _ => Err("it is not 'object,first,last'".to_owned()),
        }
    };
    match lines(file, one) {
        Err(AnnotationError::Empty { .. }) => Ok(vec![]),
        other => other,
    }
}

/// Annotations by the name of their video.
pub fn by_name(annotations: Vec<Annotation>) -> BTreeMap<String, Annotation> {
    annotations.into_iter().map(|a| (a.name.clone(), a)).collect()
}

fn lines<T>(
    path: &Path,
    one: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, AnnotationError> {
    let text = fs::read_to_string(path)
        .map_err(|source| AnnotationError::Read { path: path.to_owned(), source })?;
    let read = |(at, line): (usize, &str)| {
        one(line).map_err(|what| AnnotationError::Line {
            path: path.to_owned(),
            line: at + 1,
            what,
        })
    };
    let wanted = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let found: Vec<T> = wanted.map(read).collect::<Result<_, _>>()?;
    match found.is_empty() {
        true => Err(AnnotationError::Empty { path: path.to_owned() }),
        false => Ok(found),
    }
}

fn ordered(first: u64, last: u64) -> Result<(u64, u64), String> {
    if first <= last {
        return Ok((first, last));
    }
    Err(format!("the interval from {first} to {last} ends before it begins"))
}

/// XD-Violence's names hold dots of their own: only what is a video's extension goes.
fn without_extension(name: &str) -> &str {
    name.strip_suffix(".mp4").or_else(|| name.strip_suffix(".avi")).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::TempPath {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file.into_temp_path()
    }

    #[test]
    fn ucf_crime_is_read_with_its_double_spaces_and_missing_intervals() {
        let it = file(
            "Abuse028_x264.mp4  Abuse  165  240  -1  -1  \n\
             Arson011_x264.mp4  Arson  150  420  680  1267  \n\
             Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1  \n",
        );
        let found = ucf_crime(&it).unwrap();
        assert_eq!(found[1].name, "Arson011_x264");
        assert_eq!(found[1].intervals, [(150, 420), (680, 1267)]);
        assert_eq!(found[0].intervals, [(165, 240)]);
        assert!(!found[2].anomalous());
    }

    #[test]
    fn xd_violence_keeps_the_dots_and_hashes_of_its_names() {
        let it = file(
            "v=S-7rRLrxnVQ__#1_label_B4-0-0 0 1517 1970 3038\nA.B__#00-02-39_label_G-0-0 77 1430\n",
        );
        let found = xd_violence(&it).unwrap();
        assert_eq!((found[0].class.as_str(), found[0].intervals.len()), ("B4-0-0", 2));
        assert_eq!(found[1].name, "A.B__#00-02-39_label_G-0-0");
        assert_eq!(xd_class("v=x__#1_label_A"), "Normal");
    }

    #[test]
    fn ubnormal_is_found_below_its_scenes_and_a_video_without_tracks_is_normal() {
        let dir = tempfile::tempdir().unwrap();
        for (scene, video, tracks) in [
            ("Scene2", "abnormal_scene_2_scenario_1", Some("3,120,245\n1.0,10.0,20.0\n")),
            ("Scene2", "normal_scene_2_scenario_4", None),
        ] {
            let folder = dir.path().join(scene).join(format!("{video}_annotations"));
            fs::create_dir_all(&folder).unwrap();
            if let Some(tracks) = tracks {
                fs::write(folder.join(format!("{video}_tracks.txt")), tracks).unwrap();
            }
        }
        let found = ubnormal(dir.path()).unwrap();
        assert_eq!(found[0].intervals, [(10, 20), (120, 245)]);
        assert!(!found[1].anomalous());
        let truth = found[0].truth(200, EndFrame::Included);
        assert!(truth[20] && !truth[21] && truth[199]);
    }

    #[test]
    fn the_end_frame_is_a_switch_and_nothing_lies_beyond_the_video() {
        let it =
            Annotation { name: "a".into(), class: "x".into(), intervals: vec![(1, 2), (8, 9)] };
        assert_eq!(it.truth(4, EndFrame::Excluded), [false, true, false, false]);
        assert_eq!(it.truth(4, EndFrame::Included), [false, true, true, false]);
    }

    #[test]
    fn a_wrong_line_is_named() {
        let it =
            file("Abuse028_x264.mp4  Abuse  165  240  -1  -1\nArson011_x264.mp4  Arson  x  4\n");
        let error = ucf_crime(&it).unwrap_err().to_string();
        assert!(error.contains("line 2: 'x' is not a frame number"), "{error}");
        let backwards = ucf_crime(&file("a.mp4 Abuse 9 3 -1 -1\n")).unwrap_err().to_string();
        assert!(backwards.contains("ends before it begins"), "{backwards}");
        assert!(matches!(ucf_crime(&file("\n")), Err(AnnotationError::Empty { .. })));
        let missing = xd_violence(Path::new("/nonexistent/annotations.txt")).unwrap_err();
        assert!(missing.to_string().contains("cannot read the annotations in '/nonexistent/"));
    }
}
