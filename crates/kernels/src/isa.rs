//! Which instruction set the kernels use, found once at run time.

use std::sync::OnceLock;

/// An instruction set that the kernels have code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust: fused multiply-adds by `f32::mul_add`, which is one instruction on aarch64 and a library call on
    /// x86 processors without FMA.
    Portable,
    /// 256-bit vectors with FMA (x86-64 since 2013).
    Avx2,
    /// 512-bit vectors with the byte, doubleword and short-vector extensions (x86-64 servers since 2017, Zen 4).
    Avx512,
}

impl Isa {
    /// The best instruction set of this machine.
    #[must_use]
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| *Self::available().last().unwrap_or(&Self::Portable))
    }

    /// Every instruction set that this machine can run, from the slowest to the fastest.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut sets = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 {
                sets.push(Self::Avx2);
            }
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            if avx2 && wide {
                sets.push(Self::Avx512);
            }
        }
        sets
    }

    /// The name that a report prints.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2+fma",
            Self::Avx512 => "avx512f",
        }
    }
}

/// Compiles a safe function body once per instruction set and calls the best one of this machine.
///
/// The body is ordinary Rust whose float operations have a fixed order, so that all copies give the same bits; the
/// compiler vectorises each copy with the registers that it may use.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

                match $crate::Isa::best() {
                    $crate::Isa::Avx512 => {
                        #[expect(unsafe_code, reason = "run-time dispatch")]
                        // SAFETY: the features were detected on this machine.
                        return unsafe { avx512($($arg),*) };
                    }
                    $crate::Isa::Avx2 => {
                        #[expect(unsafe_code, reason = "run-time dispatch")]
                        // SAFETY: the features were detected on this machine.
                        return unsafe { avx2($($arg),*) };
                    }
                    $crate::Isa::Portable => {}
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use dispatch;
