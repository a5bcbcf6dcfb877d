/// Whether a character shows as itself. Control characters do not, nor do those that change the direction or the order of a
/// line, have no width, or end it (Unicode: `Bidi_Control`, `Default_Ignorable_Code_Point` in part, U+2028, U+2029): text
/// with them can look like another text in a log or on a screen.
pub fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{61c}' | '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_14_what_changes_how_a_line_reads_is_not_printable() {
        for good in ['a', ' ', '\u{a0}', 'é', '株', 'م', '\u{1f600}'] {
            assert!(is_printable(good), "{good:?}");
        }
        for bad in
            ['\0', '\n', '\u{1b}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{200f}', '\u{200b}', '\u{2028}', '\u{feff}']
        {
            assert!(!is_printable(bad), "{bad:?}");
        }
    }
}
