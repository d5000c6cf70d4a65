//! Commands that a user copies into a shell: whatever stands in them is one word there.

use serde_json::Value;

/// A word of a POSIX shell's command line that is exactly `text`.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:=@%+,-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A command line of these words.
pub fn line(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|text| word(text)).collect();
    words.join(" ")
}

/// The commands that make a service instance: Cloud Foundry's and IBM Cloud's.
pub fn create_service(offering: &str, plan: &str, name: &str, parameters: &Value) -> [String; 2] {
    let parameters = parameters.to_string();
    let rest = [offering, plan, name, "-c", &parameters];
    [
        line(&[&["cf", "create-service"], &rest[..]].concat()),
        line(&[&["ibmcloud", "service", "create"], &rest[..]].concat()),
    ]
}

/// The command of this project's own client that restores a backup into a new instance.
pub fn restore_backup(instance: &str, backup: &str, name: &str, parameters: &Value) -> String {
    let parameters = parameters.to_string();
    let rest = ["compose-broker", "restore-backup", instance, backup, name];
    match parameters.as_str() {
        "{}" => line(&rest),
        given => line(&[&rest[..], &["-c", given]].concat()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What a shell takes the words of a command line for.
    fn as_a_shell_reads(line: &str) -> Vec<String> {
        let script = format!("printf '%s\\0' {line}");
        let output = Command::new("sh").args(["-c", &script]).output();
        let printed = output.expect("a shell").stdout;
        let text = String::from_utf8(printed).expect("UTF-8");
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn the_commands_are_those_of_the_documents() {
        let parameters = json!({ "backup_id": "5a96d8a7e16c090018884566" });
        let [cf, ibmcloud] = create_service("compose-for-etcd", "Standard", "new", &parameters);
        assert_eq!(
            cf,
            r#"cf create-service compose-for-etcd Standard new -c '{"backup_id":"5a96d8a7e16c090018884566"}'"#
        );
        assert_eq!(
            ibmcloud,
            r#"ibmcloud service create compose-for-etcd Standard new -c '{"backup_id":"5a96d8a7e16c090018884566"}'"#
        );
    }

    #[test]
    fn a_restore_names_what_is_chosen_alone() {
        assert_eq!(
            restore_backup("my orders", "5a96", "new", &json!({})),
            "compose-broker restore-backup 'my orders' 5a96 new"
        );
        assert_eq!(
            restore_backup("orders", "5a96", "new", &json!({ "cluster_id": "c" })),
            r#"compose-broker restore-backup orders 5a96 new -c '{"cluster_id":"c"}'"#
        );
    }

    #[test]
    fn hostile_texts_stay_one_word() {
        for text in [
            "",
            "'",
            "'; rm -rf /; '",
            "$(id)",
            "`id`",
            "a b",
            "\\",
            "!x",
            "*",
            "~",
            "é",
        ] {
            assert_eq!(as_a_shell_reads(&line(&[text, "end"])), [text, "end"]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shell_reads_what_was_meant(id in "[^\\x00]{0,40}") {
            let parameters = json!({ "source_service_instance_id": id });
            let [cf, _] = create_service("o f", "p'", &id, &parameters);
            let text = parameters.to_string();
            prop_assert_eq!(
                as_a_shell_reads(&cf),
                ["cf", "create-service", "o f", "p'", &id, "-c", &text]
            );
        }
    }
}
