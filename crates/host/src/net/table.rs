//! The packet filter as a value: one table of named parts; as text for `nft -f`, whole, or as what makes another of it.
//!
//! A text is one transaction. Flows that are tracked stay as they are, since the tracking is not part of the table.
//!
//! A transaction is not one moment to all of a kernel: while it ends, new rules already ask when new elements are not found
//! yet, and a packet that is still with the old rules asks what is emptied already. So what rules ask comes before them
//! and goes after them, and a whole table never takes the place of another of its name. It is made under its other name, asleep; then it is woken and the old one put to sleep, both whole; then the old
//! one goes. A packet meets the one, the other, or for a moment both: what a chain does to a packet must be the same when
//! it is done twice.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

/// Ends a table's other name; no first one ends so.
const OTHER: &str = ".2";

const ASLEEP: &str = "\tflags dormant;\n";

/// The kind of part that holds nothing.
const TIMEOUT: &str = "ct timeout";

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    /// Family and name.
    name: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
struct Part {
    kind: &'static str,
    name: String,
    /// What it is: a set's types, where a chain is hooked in.
    head: String,
    content: Content,
}

#[derive(Clone, Debug, PartialEq)]
enum Content {
    Elements(Vec<String>),
    /// Whole lines.
    Rules(String),
}

impl Table {
    pub(super) fn new(name: impl Into<String>) -> Table {
        Table { name: name.into(), parts: Vec::new() }
    }

    /// `types` with their flags.
    pub(super) fn set(&mut self, name: impl Into<String>, types: &str, elements: &[String]) {
        self.elements("set", name.into(), types, elements);
    }

    pub(super) fn map(&mut self, name: impl Into<String>, types: &str, elements: &[String]) {
        self.elements("map", name.into(), types, elements);
    }

    /// `head` is empty where the chain is only jumped to. `rules` are whole lines.
    pub(super) fn chain(&mut self, name: impl Into<String>, head: &str, rules: impl AsRef<str>) {
        let indented = |line: &str| format!("\t\t{}\n", line.trim_start());
        let head = if head.is_empty() { String::new() } else { indented(head) };
        let content = rules.as_ref().lines().map(indented).collect();
        self.parts.push(Part { kind: "chain", name: name.into(), head, content: Content::Rules(content) });
    }

    /// How long flows of a protocol stay in the states that are named.
    pub(super) fn timeout(&mut self, name: impl Into<String>, protocol: &str, times: &str) {
        let head = format!("protocol {protocol}; policy = {{ {times} }}; ");
        self.parts.push(Part {
            kind: TIMEOUT,
            name: name.into(),
            head,
            content: Content::Elements(Vec::new()),
        });
    }

    fn elements(&mut self, kind: &'static str, name: String, types: &str, elements: &[String]) {
        let content = Content::Elements(elements.to_vec());
        self.parts.push(Part { kind, name, head: format!("type {types}; "), content });
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// An empty one of its other name.
    pub(super) fn other(&self) -> Table {
        Table::new(match self.name.strip_suffix(OTHER) {
            Some(first) => first.to_owned(),
            None => format!("{}{OTHER}", self.name),
        })
    }

    /// The same under another's name.
    pub(super) fn called(self, other: &Table) -> Table {
        Table { name: other.name.clone(), ..self }
    }

    /// All but its name, as text.
    pub(super) fn content(&self) -> String {
        let mut text = String::new();
        write_parts(self.parts.iter(), &mut text);
        text
    }

    /// The texts that add an empty chain, which no packet meets, and take it away.
    pub(super) fn with_chain(&self, chain: &str) -> String {
        format!("add chain {} {chain}\n", self.name)
    }

    pub(super) fn without_chain(&self, chain: &str) -> String {
        format!("delete chain {} {chain}\n", self.name)
    }

    /// The text that makes it, whatever of it is there.
    pub(super) fn whole(&self) -> String {
        let mut text = self.gone();
        self.write(self.parts.iter(), "", &mut text);
        text
    }

    /// The text that makes it, whatever of it is there, but no packet meets it.
    pub(super) fn whole_asleep(&self) -> String {
        let mut text = self.gone();
        self.write(self.parts.iter(), ASLEEP, &mut text);
        text
    }

    /// The text by which packets meet it.
    pub(super) fn awake(&self) -> String {
        format!("table {}\n", self.name)
    }

    /// The text by which packets meet it no more.
    pub(super) fn asleep(&self) -> String {
        let mut text = String::new();
        self.write([].into_iter(), ASLEEP, &mut text);
        text
    }

    /// The text that removes it, whether it is there or not. It is asleep before, so that it is never there empty.
    pub(super) fn gone(&self) -> String {
        format!("{}delete table {}\n", self.asleep(), self.name)
    }

    /// The texts that make it of `old`, under the name of that: what is new and asked by rules; then all else but what is
    /// not needed any more; then that goes. None where only the whole does. Elements that stay are not touched: between the old rules and the new a
    /// kernel may know nothing of those that go and come back.
    pub(super) fn since(&self, old: &Table) -> Option<[String; 3]> {
        let before: HashMap<(&str, &str), &Part> =
            old.parts.iter().map(|part| ((part.kind, part.name.as_str()), part)).collect();
        let kept: HashSet<(&str, &str)> =
            self.parts.iter().map(|part| (part.kind, part.name.as_str())).collect();
        let (mut text, mut added) = (String::new(), String::new());
        let (mut ahead, mut changed) = (Vec::new(), Vec::new());
        for part in &self.parts {
            match before.get(&(part.kind, part.name.as_str())) {
                Some(same) if *same == part => continue,
                Some(other) if other.head != part.head => return None,
                Some(Part { content: Content::Elements(before), .. }) => {
                    let Content::Elements(new) = &part.content else { return None };
                    old.element("delete", part, before, new, &mut text);
                    old.element("add", part, new, before, &mut added);
                    continue;
                }
                Some(_) => old.verb("flush", part, &mut text),
                None if part.stands_alone() => {
                    ahead.push(part);
                    continue;
                }
                None => {}
            }
            changed.push(part);
        }
        let vanished = old.parts.iter().filter(|part| !kept.contains(&(part.kind, part.name.as_str())));
        let vanished: Vec<&Part> = vanished.collect();
        let (mut first, mut last) = (String::new(), String::new());
        // Nothing is deleted that anything refers to: first all are emptied, and chains go before the sets they ask.
        let full = vanished.iter().filter(|part| part.kind != TIMEOUT);
        full.for_each(|part| old.verb("flush", part, &mut last));
        let (chains, sets): (Vec<&Part>, Vec<&Part>) = vanished.iter().partition(|part| part.kind == "chain");
        chains.into_iter().chain(sets).for_each(|part| old.verb("delete", part, &mut last));
        for (parts, text) in [(ahead, &mut first), (changed, &mut text)] {
            if !parts.is_empty() {
                old.write(parts.into_iter(), "", text);
            }
        }
        text.push_str(&added);
        Some([first, text, last])
    }

    fn verb(&self, verb: &str, part: &Part, text: &mut String) {
        let _ = writeln!(text, "{verb} {} {} {}", part.kind, self.name, part.name);
    }

    /// For the elements that only the first list has.
    fn element(&self, verb: &str, of: &Part, these: &[String], others: &[String], text: &mut String) {
        let others: HashSet<&String> = others.iter().collect();
        let only: Vec<&str> = these.iter().filter(|one| !others.contains(one)).map(String::as_str).collect();
        if !only.is_empty() {
            let _ = writeln!(text, "{verb} element {} {} {{ {} }}", self.name, of.name, only.join(", "));
        }
    }

    fn write<'a>(&self, parts: impl Iterator<Item = &'a Part>, flags: &str, text: &mut String) {
        let _ = write!(text, "table {} {{\n{flags}", self.name);
        write_parts(parts, text);
        text.push_str("}\n");
    }
}

fn write_parts<'a>(parts: impl Iterator<Item = &'a Part>, text: &mut String) {
    for Part { kind, name, head, content } in parts {
        let _ = match content {
            Content::Rules(rules) => writeln!(text, "\t{kind} {name} {{\n{head}{rules}\t}}"),
            // Empty braces are no syntax.
            Content::Elements(none) if none.is_empty() => writeln!(text, "\t{kind} {name} {{ {head}}}"),
            Content::Elements(elements) => {
                writeln!(text, "\t{kind} {name} {{ {head}elements = {{ {} }}; }}", elements.join(", "))
            }
        };
    }
}

impl Part {
    /// Whether it names no other part.
    fn stands_alone(&self) -> bool {
        matches!(self.content, Content::Elements(_)) && !self.head.contains(": verdict")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ports: &[&str], groups: &[&str]) -> Table {
        let mut table = Table::new("inet t");
        let ports: Vec<String> = ports.iter().map(|port| (*port).to_owned()).collect();
        table.set("ports", "inet_service; flags interval", &ports);
        for group in groups {
            table.chain(*group, "", "accept");
        }
        let jumps: Vec<String> = groups.iter().map(|group| format!("1 : jump {group}")).collect();
        table.map("by_mark", "mark : verdict", &jumps);
        table
    }

    #[test]
    fn only_what_differs_is_said() {
        let (old, new) = (table(&["22"], &["a"]), table(&["22", "80-90"], &["b"]));
        assert_eq!(old.since(&old).unwrap(), ["", "", ""]);
        assert_eq!(
            new.since(&old).unwrap().concat(),
            "delete element inet t by_mark { 1 : jump a }
table inet t {
\tchain b {
\t\taccept
\t}
}
add element inet t ports { 80-90 }
add element inet t by_mark { 1 : jump b }
flush chain inet t a
delete chain inet t a
"
        );
        assert_eq!(
            table(&[], &[]).since(&table(&["22"], &[])).unwrap()[1].lines().next(),
            Some("delete element inet t ports { 22 }")
        );
    }

    #[test]
    fn new_sets_are_there_before_they_are_asked() {
        let [ahead, rest, _] = table(&["22"], &["a"]).since(&Table::new("inet t")).unwrap();
        assert!(ahead.contains("set ports") && !ahead.contains("by_mark"), "{ahead}");
        assert!(rest.contains("map by_mark") && !rest.contains("ports"), "{rest}");
    }

    #[test]
    fn what_became_something_else_is_made_anew() {
        let mut other = table(&["22"], &[]);
        other.parts[0].head = "type ipv4_addr; ".into();
        assert_eq!(other.since(&table(&["22"], &[])), None);
    }

    #[test]
    fn a_table_has_two_names() {
        let first = table(&[], &["a"]);
        let second = table(&[], &["b"]).called(&first.other());
        assert_eq!((second.name(), second.other().name()), ("inet t.2", "inet t"));
        assert_eq!(
            second.other().asleep() + &second.awake(),
            "table inet t {\n\tflags dormant;\n}\ntable inet t.2\n"
        );
        assert!(
            second.since(&first).unwrap()[2].contains("delete chain inet t a"),
            "under the name that it has"
        );
        let all = second.gone() + &second.asleep().replace("}\n", "");
        assert!(second.whole_asleep().starts_with(&all), "{}", second.whole_asleep());
    }
}
