//! A view of simd-json's tape: the nodes of one value, matched exhaustively.

use simd_json::{Node, StaticNode};
use twox_hash::XxHash3_64;

use super::json::{JsonText, push_str};

/// One value: its first node and all nodes within it.
#[derive(Clone, Copy)]
pub(super) struct Json<'t, 'f>(&'t [Node<'f>]);

fn span(node: &Node<'_>) -> usize {
    match node {
        Node::Object { count, .. } | Node::Array { count, .. } => count + 1,
        Node::String(_) | Node::Static(_) => 1,
    }
}

impl<'t, 'f> Json<'t, 'f> {
    /// The value that a whole tape holds; `null` for an empty tape.
    pub(super) fn root(nodes: &'t [Node<'f>]) -> Self {
        const NULL: &[Node<'static>] = &[Node::Static(StaticNode::Null)];
        Self(if nodes.is_empty() { NULL } else { nodes })
    }

    pub(super) fn is_null(self) -> bool {
        matches!(self.0[0], Node::Static(StaticNode::Null))
    }

    pub(super) fn text(self) -> Option<&'f str> {
        match self.0[0] {
            Node::String(text) => Some(text),
            Node::Object { .. } | Node::Array { .. } | Node::Static(_) => None,
        }
    }

    /// A number that is a non-negative integer, however written: a JSON writer may well say 5.0.
    pub(super) fn integer(self) -> Option<u64> {
        match self.0[0] {
            Node::Static(StaticNode::U64(n)) => Some(n),
            Node::Static(StaticNode::I64(n)) => u64::try_from(n).ok(),
            Node::Static(StaticNode::F64(n)) if n.fract() == 0.0 && (0.0..=9.0e15).contains(&n) => {
                Some(n as u64)
            }
            Node::Static(_) | Node::String(_) | Node::Object { .. } | Node::Array { .. } => None,
        }
    }

    pub(super) fn number(self) -> Option<f64> {
        match self.0[0] {
            Node::Static(StaticNode::U64(n)) => Some(n as f64),
            Node::Static(StaticNode::I64(n)) => Some(n as f64),
            Node::Static(StaticNode::F64(n)) => Some(n),
            Node::Static(_) | Node::String(_) | Node::Object { .. } | Node::Array { .. } => None,
        }
    }

    /// The items of an array.
    pub(super) fn items(self) -> Option<Items<'t, 'f>> {
        match self.0[0] {
            Node::Array { len, .. } => Some(Items {
                nodes: &self.0[1..],
                left: len,
            }),
            Node::Object { .. } | Node::String(_) | Node::Static(_) => None,
        }
    }

    /// The members of an object, in the order of the text.
    pub(super) fn members(self) -> Option<Members<'t, 'f>> {
        match self.0[0] {
            Node::Object { len, .. } => Some(Members(Items {
                nodes: &self.0[1..],
                left: 2 * len,
            })),
            Node::Array { .. } | Node::String(_) | Node::Static(_) => None,
        }
    }

    /// An object's member; the last of that name, as JavaScript has it.
    pub(super) fn get(self, name: &str) -> Option<Self> {
        self.members()?
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .last()
    }

    pub(super) fn compact(self) -> JsonText {
        let mut out = String::with_capacity(64);
        self.write(&mut out);
        JsonText::from_trusted(out)
    }

    /// A hash of the value: equal for texts that mean the same, whatever the order of an object's members and the
    /// writing of its numbers. Not secret: whoever makes two values of one hash fools nobody but himself.
    pub(super) fn fingerprint(self) -> u64 {
        const OBJECT: u64 = 0x6f62_6a65_6374;
        let tagged = |tag: u64, bytes: &[u8]| XxHash3_64::oneshot_with_seed(tag, bytes);
        match self.0[0] {
            Node::Static(StaticNode::Null) => tagged(1, b""),
            Node::Static(StaticNode::Bool(b)) => tagged(2, &[u8::from(b)]),
            Node::Static(StaticNode::I64(n)) => integer_fingerprint(i128::from(n)),
            Node::Static(StaticNode::U64(n)) => integer_fingerprint(i128::from(n)),
            // A double that is an integer of 64 bits is that integer.
            Node::Static(StaticNode::F64(n)) if n.fract() == 0.0 && (-9.3e18..1.85e19).contains(&n) => {
                integer_fingerprint(n as i128)
            }
            Node::Static(StaticNode::F64(n)) => tagged(4, &n.to_bits().to_le_bytes()),
            Node::String(text) => tagged(5, text.as_bytes()),
            Node::Array { len, .. } => {
                let items = Items {
                    nodes: &self.0[1..],
                    left: len,
                };
                items.fold(6, |hash, item| tagged(hash, &item.fingerprint().to_le_bytes()))
            }
            Node::Object { len, .. } => {
                let members = Members(Items {
                    nodes: &self.0[1..],
                    left: 2 * len,
                });
                // A sum, so that the order does not matter.
                let sum = members.fold(OBJECT, |sum, (key, value)| {
                    sum.wrapping_add(tagged(value.fingerprint(), key.as_bytes()))
                });
                tagged(7, &sum.to_le_bytes())
            }
        }
    }

    /// Depth is bounded by the parser, so the recursion is.
    fn write(self, out: &mut String) {
        use std::fmt::Write as _;
        match self.0[0] {
            Node::String(text) => push_str(out, text),
            Node::Static(StaticNode::Null) => out.push_str("null"),
            Node::Static(StaticNode::Bool(b)) => out.push_str(if b { "true" } else { "false" }),
            Node::Static(StaticNode::I64(n)) => {
                let _ = write!(out, "{n}");
            }
            Node::Static(StaticNode::U64(n)) => {
                let _ = write!(out, "{n}");
            }
            // The shortest text that reads back the same; the parser gives finite numbers only.
            Node::Static(StaticNode::F64(n)) => out.push_str(&serde_json::to_string(&n).unwrap_or_default()),
            Node::Array { len, .. } => {
                out.push('[');
                for (i, item) in (Items {
                    nodes: &self.0[1..],
                    left: len,
                })
                .enumerate()
                {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Node::Object { len, .. } => {
                out.push('{');
                for (i, (key, item)) in Members(Items {
                    nodes: &self.0[1..],
                    left: 2 * len,
                })
                .enumerate()
                {
                    if i > 0 {
                        out.push(',');
                    }
                    push_str(out, key);
                    out.push(':');
                    item.write(out);
                }
                out.push('}');
            }
        }
    }
}

fn integer_fingerprint(n: i128) -> u64 {
    XxHash3_64::oneshot_with_seed(3, &n.to_le_bytes())
}

/// The items of an array, or the keys and values of an object in turn.
pub(super) struct Items<'t, 'f> {
    nodes: &'t [Node<'f>],
    left: usize,
}

impl<'t, 'f> Iterator for Items<'t, 'f> {
    type Item = Json<'t, 'f>;

    fn next(&mut self) -> Option<Json<'t, 'f>> {
        self.left = self.left.checked_sub(1)?;
        let (item, rest) = self.nodes.split_at(span(self.nodes.first()?));
        self.nodes = rest;
        Some(Json(item))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Items<'_, '_> {}

/// The members of an object.
pub(super) struct Members<'t, 'f>(Items<'t, 'f>);

impl<'t, 'f> Iterator for Members<'t, 'f> {
    type Item = (&'f str, Json<'t, 'f>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.0.next()?.text()?;
        Some((key, self.0.next()?))
    }
}
