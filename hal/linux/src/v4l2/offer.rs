//! Asking an opened device what it offers: formats, sizes, rates, controls.

use super::choice::nearest_step;
use super::control::{Control, ControlId, ControlRange};
use super::device::{Open, text};
use super::format::{DeviceFormat, FourCc, FrameSize, FrameSizes};
use super::rate::{FrameRates, Interval};
use super::sys;
use crate::spec::Size;
use std::io;
use std::os::fd::AsFd;

/// More entries than this in a driver's list are not believed (vivid has 83 formats).
const LONGEST_LIST: u32 = 256;

impl Open {
    /// The formats; of those that Lookback reads also the sizes and rates, since a driver may have
    /// dozens of each. `wanted` is the size whose rates are asked for where any size can be had.
    pub fn formats(&self, wanted: Size) -> Vec<DeviceFormat> {
        let formats = (0..LONGEST_LIST).map_while(|index| {
            let mut entry: sys::FmtDesc = sys::zeroed();
            (entry.index, entry.type_) = (index, sys::BUF_TYPE_CAPTURE);
            sys::enumerate_format(self.as_fd(), &mut entry).ok()?;
            Some(FourCc(entry.pixelformat))
        });
        let sizes = |code: FourCc| match code.encoding() {
            Some(_) => self.sizes(code, wanted),
            None => FrameSizes::Unknown,
        };
        formats.map(|code| DeviceFormat { code, sizes: sizes(code) }).collect()
    }

    fn sizes(&self, code: FourCc, wanted: Size) -> FrameSizes {
        let mut discrete = Vec::new();
        for index in 0..LONGEST_LIST {
            let mut entry: sys::FrmSizeEnum = sys::zeroed();
            (entry.index, entry.pixel_format) = (index, code.0);
            if sys::enumerate_frame_size(self.as_fd(), &mut entry).is_err() {
                break;
            }
            let [a, b, c, d, e, f] = entry.sizes;
            if entry.type_ != sys::FRMSIZE_DISCRETE {
                let (width, height) = ([a, b, c], [d, e, f]);
                let rates = self.rates(code, nearest_step(wanted, width, height));
                return FrameSizes::Stepwise { width, height, rates };
            }
            let rates = self.rates(code, Size { width: a, height: b });
            discrete.push(FrameSize { width: a, height: b, rates });
        }
        if discrete.is_empty() { FrameSizes::Unknown } else { FrameSizes::Discrete(discrete) }
    }

    fn rates(&self, code: FourCc, size: Size) -> FrameRates {
        let mut discrete = Vec::new();
        for index in 0..LONGEST_LIST {
            let mut entry: sys::FrmIvalEnum = sys::zeroed();
            (entry.index, entry.pixel_format) = (index, code.0);
            (entry.width, entry.height) = (size.width, size.height);
            if sys::enumerate_frame_interval(self.as_fd(), &mut entry).is_err() {
                break;
            }
            let [first, second, _] =
                entry.intervals.map(|[numerator, denominator]| Interval { numerator, denominator });
            if entry.type_ != sys::FRMIVAL_DISCRETE {
                return FrameRates::Range { fastest: first, slowest: second };
            }
            discrete.push(first);
        }
        if discrete.is_empty() { FrameRates::Unknown } else { FrameRates::Discrete(discrete) }
    }

    /// Those of [`ControlId::ALL`] that the device has.
    pub fn controls(&self) -> Vec<Control> {
        ControlId::ALL.into_iter().filter_map(|id| self.control(id)).collect()
    }

    fn control(&self, id: ControlId) -> Option<Control> {
        let mut query: sys::QueryControl = sys::zeroed();
        query.id = id.number();
        sys::query_control(self.as_fd(), &mut query).ok()?;
        if query.flags & sys::CTRL_FLAG_DISABLED != 0 {
            return None;
        }
        let range = match query.type_ {
            sys::CTRL_TYPE_BOOLEAN => ControlRange::Switch,
            sys::CTRL_TYPE_MENU => ControlRange::Menu(self.menu(&query)),
            sys::CTRL_TYPE_INTEGER => {
                ControlRange::Number { min: query.minimum, max: query.maximum, step: query.step }
            }
            // Of a type that this control never has: not the one that it is meant to be.
            _ => return None,
        };
        let mut value = sys::ControlValue { id: query.id, value: 0 };
        let current = sys::get_control(self.as_fd(), &mut value).ok().map(|()| value.value);
        Some(Control {
            id,
            name: text(&query.name),
            range,
            default: query.default,
            current,
            writable: query.flags & sys::CTRL_FLAG_READ_ONLY == 0,
        })
    }

    /// The entries that the menu really has, of those within its bounds.
    fn menu(&self, control: &sys::QueryControl) -> Vec<(i32, String)> {
        let longest = LONGEST_LIST as usize;
        let entries =
            (control.minimum.max(0)..=control.maximum).take(longest).filter_map(|index| {
                let mut entry: sys::QueryMenu = sys::zeroed();
                (entry.id, entry.index) = (control.id, index as u32);
                sys::query_menu(self.as_fd(), &mut entry).ok()?;
                Some((index, text(&entry.name)))
            });
        entries.collect()
    }

    /// Sets a control; the value that the driver took.
    pub fn set_control(&self, id: ControlId, value: i32) -> io::Result<i32> {
        let mut value = sys::ControlValue { id: id.number(), value };
        sys::set_control(self.as_fd(), &mut value)?;
        Ok(value.value)
    }
}
