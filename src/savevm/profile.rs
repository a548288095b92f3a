// SPDX-License-Identifier: LGPL-2.1-or-later
//! Semantics profiles: the differences between QEMU versions that the engine knows, each as one switch.
//!
//! The stream is the same for all versions. What differs is when callbacks run, what an error does, and what the
//! description of the stream contains. A context without switches behaves as QEMU 7.2.
//!
//! Differences that only add a callback need no switch: a layout without the member has no device with the callback. These
//! are `save_prepare`, `early_setup`, the approval of the switchover, the threads at the end of precopy and of a load,
//! `load_state_buffer`, `save_complete` and `save_postcopy_prepare`.

/// A set of switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Profile(pub u64);

impl Profile {
    /// QEMU 7.2.
    pub const NONE: Self = Self(0);
    /// `save_setup` runs inside the big lock (8.2).
    pub const SETUP_LOCKED: Self = Self(1 << 0);
    /// A second registration of a name and instance is refused (8.2).
    pub const REFUSE_DUPLICATES: Self = Self(1 << 1);
    /// A round visits all devices, and is complete if all of them are (9.0).
    pub const ITERATE_ALL: Self = Self(1 << 2);
    /// A failure of setup is returned, without the notice, as is the result of the notice (9.1).
    pub const SETUP_ERRORS: Self = Self(1 << 3);
    /// The CPUs are synchronised for the devices that are saved whole, and not for the live ones before them (10.0).
    pub const SYNC_CPUS_LATE: Self = Self(1 << 4);
    /// SWITCHOVER_START is sent and understood (10.0).
    pub const SWITCHOVER_START: Self = Self(1 << 5);
    /// The description of the stream begins with the configuration section (8.2).
    pub const DESCRIBE_CONFIGURATION: Self = Self(1 << 6);
    /// The description of the stream names null pointers in arrays, and describes such arrays in pieces (10.0).
    pub const DESCRIBE_NULLS: Self = Self(1 << 7);
    /// Lists of fields must have their end marker, and names of subsections must begin with the parent's name (8.0).
    pub const CHECK_DESCRIPTIONS: Self = Self(1 << 8);
    /// The dump of a description has the number of elements of arrays (8.1).
    pub const DUMP_COUNTS: Self = Self(1 << 9);
    /// A subsection that cannot be loaded sets the error of the file (8.2).
    pub const LATCH_SUBSECTIONS: Self = Self(1 << 10);
    /// The description of the stream has spaces inside of brackets and before colons (up to 5.2).
    pub const DESCRIBE_SPACED: Self = Self(1 << 11);
    /// The notice of setup is not sent if setup failed (9.0).
    pub const SKIP_SETUP_NOTICE: Self = Self(1 << 12);
    /// `load_cleanup` is called after a load that failed in `load_setup`, too (9.2).
    pub const CLEAN_FAILED_SETUP: Self = Self(1 << 13);

    /// The switches of newer versions, each with the version that introduced it, as major * 100 + minor.
    pub const ALL: [(Self, u32, &'static str); 13] = [
        (Self::CHECK_DESCRIPTIONS, 800, "CHECK_DESCRIPTIONS"),
        (Self::DUMP_COUNTS, 801, "DUMP_COUNTS"),
        (Self::SETUP_LOCKED, 802, "SETUP_LOCKED"),
        (Self::REFUSE_DUPLICATES, 802, "REFUSE_DUPLICATES"),
        (Self::DESCRIBE_CONFIGURATION, 802, "DESCRIBE_CONFIGURATION"),
        (Self::LATCH_SUBSECTIONS, 802, "LATCH_SUBSECTIONS"),
        (Self::ITERATE_ALL, 900, "ITERATE_ALL"),
        (Self::SKIP_SETUP_NOTICE, 900, "SKIP_SETUP_NOTICE"),
        (Self::SETUP_ERRORS, 901, "SETUP_ERRORS"),
        (Self::CLEAN_FAILED_SETUP, 902, "CLEAN_FAILED_SETUP"),
        (Self::SYNC_CPUS_LATE, 1000, "SYNC_CPUS_LATE"),
        (Self::SWITCHOVER_START, 1000, "SWITCHOVER_START"),
        (Self::DESCRIBE_NULLS, 1000, "DESCRIBE_NULLS"),
    ];
    /// The last version with `DESCRIBE_SPACED`.
    const LAST_SPACED: u32 = 502;

    /// Returns whether all switches of `other` are set.
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the switches of both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the profile of a QEMU version, given as major * 100 + minor.
    pub const fn of_qemu(version: u32) -> Self {
        let (mut bits, mut at) = (if version <= Self::LAST_SPACED { Self::DESCRIBE_SPACED.0 } else { 0 }, 0);
        while at < Self::ALL.len() {
            let (switch, since, _) = Self::ALL[at];
            if since <= version {
                bits |= switch.0;
            }
            at += 1;
        }
        Self(bits)
    }

    /// Returns the bits that no switch has.
    pub const fn unknown(self) -> u64 {
        self.0 & !Self::of_qemu(u32::MAX).with(Self::DESCRIBE_SPACED).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_grow_with_the_version() {
        assert_eq!(Profile::of_qemu(502), Profile::DESCRIBE_SPACED);
        assert_eq!(Profile::of_qemu(600), Profile::NONE);
        assert_eq!(Profile::of_qemu(702), Profile::NONE);
        let (old, new) = (Profile::of_qemu(901), Profile::of_qemu(1000));
        assert!(new.has(old) && !old.has(Profile::SWITCHOVER_START) && new.has(Profile::SWITCHOVER_START));
        assert_eq!((Profile::of_qemu(9999).unknown(), Profile(1 << 40).unknown()), (0, 1 << 40));
    }
}
