//! The types that a key can have: how each is read, described and printed.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use toml::de::DeValue;

/// A type that a key can have.
pub(in crate::config) trait Setting: Sized {
    /// What narrows the type down.
    type Allowed;
    /// The value, if it is one that is allowed.
    fn read(value: &DeValue<'_>, allowed: &Self::Allowed) -> Option<Self>;
    /// In words: "a whole number from 1 to 100".
    fn expected(allowed: &Self::Allowed) -> String;
    /// As it stands in a file.
    fn printed(&self) -> String;
    /// What the printed file says beside the doc comment; empty if the value shows it by itself.
    fn remark(allowed: &Self::Allowed) -> String {
        Self::expected(allowed)
    }
}

macro_rules! whole_number {
    ($($Type:ty),+) => {$(
        impl Setting for $Type {
            type Allowed = RangeInclusive<$Type>;
            fn read(value: &DeValue<'_>, allowed: &Self::Allowed) -> Option<Self> {
                let written = value.as_integer()?;
                let number = Self::from_str_radix(written.as_str(), written.radix()).ok()?;
                allowed.contains(&number).then_some(number)
            }
            fn expected(allowed: &Self::Allowed) -> String {
                format!("a whole number from {} to {}", allowed.start(), allowed.end())
            }
            fn printed(&self) -> String {
                self.to_string()
            }
        }
    )+};
}
whole_number!(u8, u32, u64);

impl Setting for f64 {
    type Allowed = RangeInclusive<f64>;
    fn read(value: &DeValue<'_>, allowed: &Self::Allowed) -> Option<Self> {
        let number = match value {
            DeValue::Float(written) => written.as_str().parse().ok()?,
            // Nobody writes 120.0 where 120 will do.
            DeValue::Integer(written) if written.radix() == 10 => written.as_str().parse().ok()?,
            _ => return None,
        };
        allowed.contains(&number).then_some(number)
    }
    fn expected(allowed: &Self::Allowed) -> String {
        format!("a number from {} to {}", allowed.start(), allowed.end())
    }
    fn printed(&self) -> String {
        format!("{self:?}")
    }
}

/// A number of which 0 means "none".
impl<T: Setting + Default + PartialEq> Setting for Option<T> {
    type Allowed = T::Allowed;
    fn read(value: &DeValue<'_>, allowed: &Self::Allowed) -> Option<Self> {
        T::read(value, allowed).map(|number| (number != T::default()).then_some(number))
    }
    fn expected(allowed: &Self::Allowed) -> String {
        T::expected(allowed)
    }
    fn printed(&self) -> String {
        self.as_ref().map_or_else(|| "0".to_owned(), T::printed)
    }
}

impl Setting for bool {
    type Allowed = ();
    fn read(value: &DeValue<'_>, (): &()) -> Option<Self> {
        value.as_bool()
    }
    fn expected((): &()) -> String {
        "true or false".into()
    }
    fn remark((): &()) -> String {
        String::new()
    }
    fn printed(&self) -> String {
        self.to_string()
    }
}

/// What a text may be.
pub(in crate::config) enum Text {
    /// Anything.
    Any,
    /// Anything but nothing.
    Filled,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

impl Setting for String {
    type Allowed = Text;
    fn read(value: &DeValue<'_>, allowed: &Text) -> Option<Self> {
        let text = value.as_str()?;
        let fits = match allowed {
            Text::Any => true,
            Text::Filled => !text.trim().is_empty(),
            Text::OneOf(words) => words.contains(&text),
        };
        // It goes into names, logs and pages, where a control character is only ever an accident.
        (fits && !text.contains(char::is_control)).then(|| text.to_owned())
    }
    fn expected(allowed: &Text) -> String {
        match allowed {
            Text::Any => "a text of one line in quotation marks".into(),
            Text::Filled => "a text of one line in quotation marks, not empty".into(),
            Text::OneOf(words) => format!("one of \"{}\"", words.join("\", \"")),
        }
    }
    fn printed(&self) -> String {
        toml::Value::from(self.as_str()).to_string()
    }
    fn remark(allowed: &Text) -> String {
        match allowed {
            Text::OneOf(_) => Self::expected(allowed),
            Text::Any | Text::Filled => String::new(),
        }
    }
}

impl Setting for PathBuf {
    type Allowed = Text;
    fn read(value: &DeValue<'_>, allowed: &Text) -> Option<Self> {
        String::read(value, allowed).map(Self::from)
    }
    fn expected(allowed: &Text) -> String {
        String::expected(allowed)
    }
    fn remark(allowed: &Text) -> String {
        String::remark(allowed)
    }
    fn printed(&self) -> String {
        self.to_string_lossy().into_owned().printed()
    }
}
