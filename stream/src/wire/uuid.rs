// SPDX-License-Identifier: LGPL-2.1-or-later
//! UUIDs as text, for messages and reports.

/// Returns a UUID in its usual form: 32 hexadecimal digits in five groups.
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_separated() {
        let uuid = std::array::from_fn(|at| 0x11 * at as u8);
        assert_eq!(uuid_text(&uuid), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
