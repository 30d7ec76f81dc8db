//! Names of topics (rule 32).

use tidelog_protocol::types::TopicName;
use tidelog_replication::MetadataImage;

use super::error::TopicError;

/// Longest name.
pub const LENGTH_MAX: usize = 249;

/// Checks that a name is one that Kafka allows: 1 to 249 of `[a-zA-Z0-9._-]`, neither `.` nor `..`.
pub fn check(name: &str) -> Result<(), TopicError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let reason = match name {
        "" => "the empty string is not allowed".to_owned(),
        "." | ".." => format!("'{name}' is not allowed"),
        _ if name.encode_utf16().count() > LENGTH_MAX => {
            format!("the length of '{name}' is longer than the max allowed length {LENGTH_MAX}")
        }
        _ if !name.bytes().all(legal) => format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        ),
        _ => return Ok(()),
    };
    Err(TopicError::InvalidName(reason))
}

/// A name as an error message repeats it: no longer than a topic's can be, as a request may hold a longer one once for
/// thousands of partitions, whose answers name it each.
pub fn shown(name: &str) -> &str {
    let end = name.floor_char_boundary(LENGTH_MAX);
    name.get(..end).unwrap_or(name)
}

/// Checks that a new topic's name is legal, free, and does not collide with another one.
pub fn check_new(image: &MetadataImage, name: &TopicName) -> Result<(), TopicError> {
    check(name.as_str())?;
    if image.topic(name).is_some() {
        return Err(TopicError::Exists(name.clone()));
    }
    if let Some(existing) = image.colliding_topic(name) {
        return Err(TopicError::NameCollision {
            name: name.clone(),
            existing: existing.clone(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_32_topic_names() {
        for good in ["a", "A.b_c-9", &"x".repeat(249), "...", "__x"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let table = [
            ("", "Topic name is invalid: the empty string is not allowed"),
            (".", "Topic name is invalid: '.' is not allowed"),
            ("..", "Topic name is invalid: '..' is not allowed"),
            (
                "a b",
                "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
            ),
        ];
        for (bad, message) in table {
            assert_eq!(check(bad).expect_err("refused").to_string(), message);
        }
        for bad in ["\u{e4}", "a/b", "a:b", &"x".repeat(250), "a\0"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn messages_repeat_no_more_of_a_name_than_a_topic_can_have() {
        assert_eq!(shown("orders"), "orders");
        assert_eq!(shown(&"x".repeat(30_000)).len(), LENGTH_MAX);
        assert_eq!(shown(&"\u{e4}".repeat(30_000)).len(), LENGTH_MAX - 1);
    }
}
