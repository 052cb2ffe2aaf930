//! Products of one panel of weights with some rows of activations, for each kind of CPU.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use crate::{Activations, Matrix, ROWS, activations::GROUP};
use std::{fmt, ops::Range};

/// What multiplies. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// Plain Rust, for any CPU: what the others are held to.
    Scalar,
    /// x86-64 with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// x86-64 with AVX-512 and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// aarch64 with the dot product instructions (ARMv8.2).
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    /// aarch64 with the matrix product instructions besides (i8mm, ARMv8.6).
    #[cfg(target_arch = "aarch64")]
    NeonI8mm,
}

impl Variant {
    /// The fastest that this CPU has.
    pub fn best() -> Self {
        Self::here().last().copied().unwrap_or(Self::Scalar)
    }

    /// All that this CPU has, the fastest last.
    pub fn here() -> Vec<Self> {
        let mut here = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") {
                here.push(Self::Avx2);
                if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni") {
                    here.push(Self::Avx512Vnni);
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            here.push(Self::NeonDot);
            if std::arch::is_aarch64_feature_detected!("i8mm") {
                here.push(Self::NeonI8mm);
            }
        }
        here
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => "neon-dotprod",
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm => "neon-i8mm",
        })
    }
}

/// Gives `put` the products of panel `number` with each row of the `groups` of `x`.
pub(crate) fn panel(
    variant: Variant,
    matrix: &Matrix,
    number: usize,
    x: &Activations,
    groups: Range<usize>,
    put: &mut impl FnMut(usize, &[f32; ROWS]),
) {
    match x.together() {
        1 => each::<1>(variant, matrix, number, x, groups, put),
        2 => each::<2>(variant, matrix, number, x, groups, put),
        4 => each::<4>(variant, matrix, number, x, groups, put),
        _ => each::<GROUP>(variant, matrix, number, x, groups, put),
    }
}

fn each<const N: usize>(
    variant: Variant,
    matrix: &Matrix,
    number: usize,
    x: &Activations,
    groups: Range<usize>,
    put: &mut impl FnMut(usize, &[f32; ROWS]),
) {
    debug_assert!(Variant::here().contains(&variant));
    for group in groups {
        let rows = x.group::<N>(group);
        // SAFETY: a variant is chosen among those that the CPU has.
        let sums = unsafe {
            match variant {
                Variant::Scalar => scalar::group(matrix, number, &rows),
                #[cfg(target_arch = "x86_64")]
                Variant::Avx2 => avx2::group(matrix, number, &rows),
                #[cfg(target_arch = "x86_64")]
                Variant::Avx512Vnni => avx512::group(matrix, number, &rows),
                #[cfg(target_arch = "aarch64")]
                Variant::NeonDot => neon::group(matrix, number, &rows),
                #[cfg(target_arch = "aarch64")]
                Variant::NeonI8mm => neon::group_i8mm(matrix, number, &rows),
            }
        };
        let there = x.rows() - group * N;
        for (n, sums) in sums.iter().enumerate().take(there) {
            put(group * N + n, sums);
        }
    }
}
