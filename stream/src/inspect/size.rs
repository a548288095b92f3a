// SPDX-License-Identifier: LGPL-2.1-or-later
//! Sizes as text, for messages and reports.

/// Returns a size in the largest binary unit that it reaches, such as `57.0 MiB`. A whole number has no decimals.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (bytes.max(1).ilog2() / 10) as usize;
    let scaled = bytes as f64 / (1u64 << (10 * unit)) as f64;
    match unit {
        0 if bytes == 1 => "1 byte".into(),
        0 => format!("{bytes} bytes"),
        _ if bytes.is_multiple_of(1 << (10 * unit)) => format!("{scaled:.0} {}", UNITS[unit]),
        _ => format!("{scaled:.1} {}", UNITS[unit]),
    }
}

/// Returns a size in the largest binary unit and exactly, for sizes that are compared.
pub fn exact_size(bytes: u64) -> String {
    match bytes {
        0..1024 => size(bytes),
        _ => format!("{} (0x{bytes:x} bytes)", size(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_has_the_largest_unit() {
        let sizes = [0, 1, 1023, 1024, 59_768_833, 1 << 30, u64::MAX].map(size);
        assert_eq!(sizes, ["0 bytes", "1 byte", "1023 bytes", "1 KiB", "57.0 MiB", "1 GiB", "16.0 EiB"]);
    }

    #[test]
    fn exact_sizes_differ_if_the_bytes_differ() {
        assert_eq!(exact_size(1000), "1000 bytes");
        assert_eq!(exact_size((1 << 30) + 4096), "1.0 GiB (0x40001000 bytes)");
        assert_eq!(exact_size(1 << 30), "1 GiB (0x40000000 bytes)");
    }
}
