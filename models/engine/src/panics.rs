//! Panics of a library that drives an accelerator, as errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `work` gives, or what it panicked with. What it works with is not to be used after that.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = match panic.downcast_ref::<String>() {
            Some(said) => said,
            None => panic.downcast_ref::<&str>().copied().unwrap_or("it did not say why"),
        };
        Err(format!("it panicked: {said}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        assert_eq!(caught(|| Ok(1)), Ok(1));
        assert_eq!(caught(|| Err::<u8, _>("no".into())), Err("no".into()));
        assert_eq!(caught::<u8>(|| panic!("a driver")), Err("it panicked: a driver".into()));
        assert_eq!(caught::<u8>(|| panic!("{} of 2", 1)), Err("it panicked: 1 of 2".into()));
    }
}
