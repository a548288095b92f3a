// SPDX-License-Identifier: LGPL-2.1-or-later
//! Selects devices by name patterns.

use savevm_stream::inspect::Device;

use crate::words;

/// Name patterns, each with an optional instance: `cpu*`, `vga`, `*03.0/e1000`, `serial#1`.
pub struct Selection {
    patterns: Vec<Pattern>,
    all_if_empty: bool,
}

struct Pattern {
    name: String,
    instance: Option<u32>,
}

impl Selection {
    /// Returns a selection of these patterns, or of every device if there are none.
    pub fn all_or(patterns: &[String]) -> Self {
        Self { patterns: patterns.iter().map(|text| Pattern::new(text)).collect(), all_if_empty: true }
    }

    /// Returns a selection of these patterns, or of no device if there are none.
    pub fn none_or(patterns: &[String]) -> Self {
        Self { all_if_empty: false, ..Self::all_or(patterns) }
    }

    /// Returns whether the device is selected.
    pub fn has(&self, device: &Device) -> bool {
        if self.patterns.is_empty() {
            return self.all_if_empty;
        }
        self.patterns.iter().any(|pattern| pattern.matches(device))
    }

    /// Returns whether patterns were given.
    pub fn is_narrowed(&self) -> bool {
        !self.patterns.is_empty()
    }
}

impl Pattern {
    fn new(text: &str) -> Self {
        let numbered = text.rsplit_once('#').and_then(|(name, number)| Some((name, number.parse().ok()?)));
        match numbered {
            Some((name, instance)) => Self { name: name.into(), instance: Some(instance) },
            None => Self { name: text.into(), instance: None },
        }
    }

    fn matches(&self, device: &Device) -> bool {
        // A device on a bus also matches by the last part of its name, without its address.
        let (_, short) = device.name.rsplit_once('/').unwrap_or_default();
        self.instance.is_none_or(|instance| instance == device.instance)
            && (words::glob(&self.name, &device.name) || !short.is_empty() && words::glob(&self.name, short))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_select_by_name_and_instance() {
        let device = |name: &str, instance| Device { name: name.into(), instance };
        let selection = Selection::none_or(&["cpu*".into(), "serial#1".into()]);
        assert!(selection.has(&device("cpu_common", 3)));
        assert!(selection.has(&device("serial", 1)));
        assert!(!selection.has(&device("serial", 0)));
        let vga = Selection::none_or(&["vga".into()]);
        assert!(vga.has(&device("0000:00:02.0/vga", 0)) && vga.has(&device("vga", 0)));
        assert!(!vga.has(&device("vga/0", 0)) && !vga.has(&device("0000:00:02.0/vga2", 0)));
        assert!(!Selection::none_or(&["".into()]).has(&device("vga", 0)));
        assert!(!Selection::none_or(&[]).has(&device("cpu", 0)));
        assert!(Selection::all_or(&[]).has(&device("cpu", 0)));
    }
}
