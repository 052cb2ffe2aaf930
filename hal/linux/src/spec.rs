//! `PATH,key=value,key=value`: how a camera is named on the command line and in the configuration.

use hal_camera::CameraError;
use std::str::FromStr;

/// A camera specification taken apart; each option can be taken once.
pub(crate) struct Spec {
    whole: String,
    /// Device or file: everything before the options.
    pub path: String,
    options: Vec<(String, String)>,
}

impl Spec {
    /// Takes `text` apart. Options are read from the end, so that a path may contain commas; a path
    /// that itself ends in `,word=…` cannot be told from an option.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, CameraError> {
        let mut spec = Spec { whole: text.to_string(), path: String::new(), options: Vec::new() };
        let mut rest = text;
        while let Some((before, last)) = rest.rsplit_once(',') {
            let Some((key, value)) = last.split_once('=') else { break };
            if key.is_empty() || !key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                break;
            }
            if !known.contains(&key) {
                let known = known.join(", ");
                return Err(spec.error(format!("no option '{key}'; there are: {known}")));
            }
            if spec.options.iter().any(|(k, _)| k == key) {
                return Err(spec.error(format!("option '{key}' is given twice")));
            }
            spec.options.push((key.to_string(), value.to_string()));
            rest = before;
        }
        if rest.is_empty() {
            return Err(spec.error("the path is missing".to_string()));
        }
        spec.path = rest.to_string();
        Ok(spec)
    }

    /// The value of option `key`, if given; `expected` says in words what would be right.
    pub fn take<T: FromStr>(
        &mut self,
        key: &str,
        expected: &str,
    ) -> Result<Option<T>, CameraError> {
        let Some(at) = self.options.iter().position(|(k, _)| k == key) else { return Ok(None) };
        let (_, value) = self.options.swap_remove(at);
        match value.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(self.error(format!("{key}={value} is not {expected}"))),
        }
    }

    /// The same, for a number within bounds.
    pub fn take_within(
        &mut self,
        key: &str,
        min: f64,
        max: f64,
    ) -> Result<Option<f64>, CameraError> {
        let expected = format!("a number from {min} to {max}");
        match self.take::<f64>(key, &expected)? {
            Some(n) if (min..=max).contains(&n) => Ok(Some(n)),
            Some(n) => Err(self.error(format!("{key}={n} is not {expected}"))),
            None => Ok(None),
        }
    }

    pub fn error(&self, reason: String) -> CameraError {
        CameraError::Spec { spec: self.whole.clone(), reason }
    }
}

/// `WIDTHxHEIGHT` in pixels, both at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub width: u32,
    pub height: u32,
}

impl FromStr for Size {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (width, height) = text.split_once('x').ok_or(())?;
        let side = |s: &str| s.parse::<u16>().ok().filter(|&n| n > 0).map(u32::from).ok_or(());
        Ok(Size { width: side(width)?, height: side(height)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        let mut spec = match Spec::parse(text, &["fps", "size"]) {
            Ok(spec) => spec,
            Err(error) => return error.to_string(),
        };
        let fps = spec.take_within("fps", 1.0, 60.0);
        let size = spec.take::<Size>("size", "WIDTHxHEIGHT");
        fps.err().or(size.err()).expect("must be refused").to_string()
    }

    #[test]
    fn options_come_after_the_path_and_the_path_may_contain_commas() {
        let mut spec = Spec::parse("a,b = c.mp4,fps=4,size=64x48", &["fps", "size"]).unwrap();
        assert_eq!(spec.path, "a,b = c.mp4");
        assert_eq!(spec.take_within("fps", 1.0, 60.0).unwrap(), Some(4.0));
        assert_eq!(spec.take::<Size>("size", "").unwrap(), Some(Size { width: 64, height: 48 }));
        assert_eq!(spec.take::<Size>("size", "").unwrap(), None);
    }

    #[test]
    fn every_wrong_option_is_refused_with_what_would_be_right() {
        for (text, expected) in [
            ("x.mp4,fsp=8", "no option 'fsp'; there are: fps, size"),
            ("x.mp4,fps=8,fps=9", "option 'fps' is given twice"),
            ("x.mp4,fps=fast", "fps=fast is not a number from 1 to 60"),
            ("x.mp4,fps=NaN", "fps=NaN is not a number from 1 to 60"),
            ("x.mp4,fps=0", "fps=0 is not a number from 1 to 60"),
            ("x.mp4,size=640", "size=640 is not WIDTHxHEIGHT"),
            ("x.mp4,size=0x9", "size=0x9 is not WIDTHxHEIGHT"),
            (",fps=8", "the path is missing"),
            ("", "the path is missing"),
        ] {
            assert_eq!(reason(text), format!("camera specification '{text}': {expected}"));
        }
    }
}
