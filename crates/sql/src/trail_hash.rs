//! The hash of an entry of the audit trail: it covers the entry before it in its chain.

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;

/// The hash before the first entry of a chain.
pub(crate) const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What the hash of an entry covers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Rule {
    /// The document: the rule of schemas up to 9.
    Document,
    /// Every column that decides what is shown.
    Columns,
}

impl Rule {
    /// The value of the column `rule`.
    pub(crate) const fn number(self) -> i64 {
        match self {
            Self::Document => 1,
            Self::Columns => 2,
        }
    }

    pub(crate) fn from_number(number: i64) -> Option<Self> {
        [Self::Document, Self::Columns].into_iter().find(|rule| rule.number() == number)
    }
}

/// The columns of an entry, other than its number: the order of the numbers is that of the chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns<'a> {
    pub(crate) chain: i64,
    pub(crate) id: &'a str,
    pub(crate) device: &'a str,
    pub(crate) at: i64,
    pub(crate) earlier: Option<i64>,
    pub(crate) is_linked: bool,
    pub(crate) document: &'a str,
}

impl Columns<'_> {
    /// The hash by this rule, in hexadecimal digits; `before` is that of the entry before it.
    pub(crate) fn hash(&self, rule: Rule, before: &str) -> String {
        let mut context = Context::new(&SHA256);
        match rule {
            Rule::Document => {
                context.update(before.as_bytes());
                context.update(self.document.as_bytes());
            }
            Rule::Columns => {
                // Each text after its length, so that no two entries are the same bytes.
                for text in ["cvm audit entry 2", before, self.id, self.device, self.document] {
                    context.update(&(text.len() as u64).to_be_bytes());
                    context.update(text.as_bytes());
                }
                // 0 is no number of an entry.
                for number in [self.chain, self.at, self.earlier.unwrap_or_default(), self.is_linked.into()] {
                    context.update(&number.to_be_bytes());
                }
            }
        }
        HEXLOWER.encode(context.finish().as_ref())
    }
}
