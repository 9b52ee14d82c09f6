//! What brokers let us do, against what highwater needs of them, and the command that grants it.
//!
//! Nothing is tried out: brokers tell what a user may do with a topic or a group that he may see at all. Where no
//! authorizer is at work, or a broker doesn't tell, nothing is missing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::bindings::{rd_kafka_AclOperation_t as Operation, rd_kafka_resp_err_t as Code};
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

use super::native;
use super::settings::ConsumerSettings;
use crate::ports::LogError;

/// What a right is about, by its exact name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// A consumer group.
    Group(String),
    /// A name that a transactional producer goes by.
    TransactionalId(String),
}

/// A right that we lack. Its text is one line: who, what, and the command that grants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// As ACLs name it: `User:…`.
    pub principal: String,
    /// As `kafka-acls` names it: `Read`, `Write`, `Create`, `DescribeConfigs`.
    pub operation: &'static str,
    /// What it is about.
    pub resource: Resource,
    /// Bootstrap servers, for the command.
    brokers: String,
}

/// What a consumer lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Without these nothing is consumed.
    pub lacking: Vec<Right>,
    /// Without these some metrics are missing.
    pub wished: Vec<Right>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Right { principal, operation, resource, brokers } = self;
        let (what, option, name) = match resource {
            Resource::Topic(name) => ("topic", "--topic", name),
            Resource::Group(name) => ("consumer group", "--group", name),
            Resource::TransactionalId(name) => ("transactional id", "--transactional-id", name),
        };
        write!(
            f,
            "{principal} lacks the right {operation} on the {what} {name}; let an administrator run: kafka-acls.sh \
             --bootstrap-server {} --add --allow-principal {} --operation {operation} {option} {} --resource-pattern-type literal",
            quoted(brokers),
            quoted(principal),
            quoted(name)
        )
    }
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "._-:,=/@+".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Rights, a line each.
pub(crate) fn lines(rights: &[Right]) -> String {
    rights.iter().map(Right::to_string).collect::<Vec<_>>().join("\n")
}

/// Who asks, and whom.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    principal: String,
    brokers: String,
}

impl Asker {
    /// As whom brokers know a client with these librdkafka properties.
    pub(super) fn new(brokers: &str, properties: &BTreeMap<String, String>) -> Asker {
        let get = |key: &str| properties.get(key).map(String::as_str);
        let protocol = get("security.protocol").unwrap_or_default();
        let principal = match get("sasl.username") {
            Some(user) if protocol.to_ascii_lowercase().starts_with("sasl") => format!("User:{user}"),
            _ if get("ssl.certificate.location").is_some() => "User:<the subject of kafka.certificate_file>".to_owned(),
            _ => "User:ANONYMOUS".to_owned(),
        };
        Asker { principal, brokers: brokers.to_owned() }
    }

    pub(super) fn lacks(&self, operation: &'static str, resource: Resource) -> Right {
        Right { principal: self.principal.clone(), operation, resource, brokers: self.brokers.clone() }
    }
}

/// What a consumer of these settings lacks.
///
/// # Errors
/// Kafka did not answer in time.
pub(super) fn consuming<C: ClientContext>(
    client: &Client<C>,
    settings: &ConsumerSettings,
    patience: Duration,
) -> Result<Access, LogError> {
    let late =
        |what: &str| LogError::Passing(format!("Kafka did not say what we may do with {what}; asked again later"));
    let asker = Asker::new(&settings.brokers, &settings.properties);
    let mut access = Access::default();
    for topic in &settings.topics {
        let found =
            native::describe_topic(client, topic, patience).ok_or_else(|| late(&format!("the topic {topic}")))?;
        let resource = || Resource::Topic(topic.clone());
        match allowed(found.map(|topic| topic.operations), Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
            None => {}
            Some(operations) => {
                // Who may read may describe.
                if !operations.contains(&Operation::RD_KAFKA_ACL_OPERATION_READ) {
                    access.lacking.push(asker.lacks("Read", resource()));
                }
                if !operations.contains(&Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS) {
                    access.wished.push(asker.lacks("DescribeConfigs", resource()));
                }
            }
        }
    }
    let group = &settings.group;
    let found = native::group_operations(client, group, patience).ok_or_else(|| late(&format!("the group {group}")))?;
    if let Some(operations) = allowed(found, Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED)
        && !operations.contains(&Operation::RD_KAFKA_ACL_OPERATION_READ)
    {
        access.lacking.push(asker.lacks("Read", Resource::Group(group.clone())));
    }
    Ok(access)
}

/// The right that a producer lacks to write a topic, if that is known.
pub(super) fn producing<C: ClientContext>(
    client: &Client<C>,
    asker: &Asker,
    topic: &str,
    patience: Duration,
) -> Option<Right> {
    let found = native::describe_topic(client, topic, patience)?.map(|topic| topic.operations);
    let operations = allowed(found, Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)?;
    let lacks = !operations.contains(&Operation::RD_KAFKA_ACL_OPERATION_WRITE);
    lacks.then(|| asker.lacks("Write", Resource::Topic(topic.to_owned())))
}

/// What may be done: nothing, where `denied` is the answer; `None`: nobody knows.
fn allowed(found: Result<Vec<Operation>, native::Refusal>, denied: Code) -> Option<Vec<Operation>> {
    match found {
        Ok(operations) if operations.is_empty() => None,
        Ok(operations) => Some(operations),
        Err((code, _)) if code == denied => Some(Vec::new()),
        Err(_) => None,
    }
}

/// Whether somebody was refused because he lacks a right.
pub(super) fn is_denial(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn asker(properties: &[(&str, &str)]) -> Asker {
        let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Asker::new("a:1,b:2", &properties)
    }

    #[test]
    fn a_principal_is_named_as_brokers_know_it() {
        let cases = [
            (&[("security.protocol", "sasl_ssl"), ("sasl.username", "me")][..], "User:me"),
            (&[("security.protocol", "SASL_PLAINTEXT"), ("sasl.username", "me")], "User:me"),
            (&[("security.protocol", "plaintext"), ("sasl.username", "me")], "User:ANONYMOUS"),
            (&[("security.protocol", "ssl")], "User:ANONYMOUS"),
            (&[], "User:ANONYMOUS"),
        ];
        for (properties, principal) in cases {
            assert_eq!(asker(properties).principal, principal);
        }
        let certificate = asker(&[("security.protocol", "ssl"), ("ssl.certificate.location", "/x")]);
        assert!(certificate.principal.contains("kafka.certificate_file"));
    }

    #[test]
    fn a_right_is_one_line_that_a_shell_takes() {
        let asker = asker(&[("security.protocol", "sasl_ssl"), ("sasl.username", "the o'brien")]);
        let right = asker.lacks("Read", Resource::Group("a group".to_owned())).to_string();
        let command = "kafka-acls.sh --bootstrap-server a:1,b:2 --add --allow-principal 'User:the o'\\''brien' --operation \
                       Read --group 'a group' --resource-pattern-type literal";
        assert!(right.ends_with(command) && !right.contains('\n'), "{right}");
    }

    #[test]
    fn what_a_broker_does_not_tell_is_not_missing() {
        use Operation::RD_KAFKA_ACL_OPERATION_READ as Read;
        let (denied, other) = (Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, Code::RD_KAFKA_RESP_ERR__FAIL);
        assert_eq!(allowed(Ok(vec![]), denied), None);
        assert_eq!(allowed(Err((other, String::new())), denied), None);
        assert_eq!(allowed(Err((denied, String::new())), denied), Some(vec![]));
        assert_eq!(allowed(Ok(vec![Read]), denied), Some(vec![Read]));
    }
}
