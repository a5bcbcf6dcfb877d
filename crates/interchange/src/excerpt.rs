//! Values of a file in messages.

/// The longest part of a value that is shown, in characters. It is short, because a token in the wrong column must stay
/// a secret.
const SHOWN: usize = 16;

/// The beginning of a value in quotes, with control characters escaped.
pub(crate) fn excerpt(value: &str) -> String {
    let mut characters = value.chars();
    let shown: String = characters.by_ref().take(SHOWN).flat_map(char::escape_debug).collect();
    let rest = if characters.next().is_some() { "…" } else { "" };
    format!("\"{shown}{rest}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_cut_and_commands_no_terminal() {
        assert_eq!(excerpt("sn 1"), r#""sn 1""#);
        assert_eq!(excerpt("a\x1b]0;\u{202e}"), r#""a\u{1b}]0;\u{202e}""#);
        assert_eq!(excerpt("0123456789abcdef"), r#""0123456789abcdef""#);
        assert_eq!(excerpt(&"x".repeat(1 << 20)), format!("\"{}…\"", "x".repeat(16)));
    }
}
