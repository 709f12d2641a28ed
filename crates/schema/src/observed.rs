//! What was seen in JSON values: of which types they are, how often, and what is in them.
//!
//! Counting is all there is to it, so the order of values makes no difference, and what was seen apart can be
//! put together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most places in values, objects' members and lists' elements, that are told apart of one topic.
pub const MAX_PLACES: usize = 10_000;

/// The type of a JSON value, as far as columns go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JsonKind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A number without fraction or exponent, of 64 bits at the most.
    Long,
    /// Any other number that a double can be.
    Double,
    /// A text.
    Text,
    /// What no column but one of JSON text can have: a whole number beyond 64 bits, whose digits a double would
    /// lose, a number beyond a double, a text with half a character in it.
    Odd,
    /// An array.
    List,
    /// An object.
    Object,
}

impl JsonKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Null,
        Self::Boolean,
        Self::Long,
        Self::Double,
        Self::Text,
        Self::Odd,
        Self::List,
        Self::Object,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Long => "long",
            Self::Double => "double",
            Self::Text => "string",
            Self::Odd => "other",
            Self::List => "array",
            Self::Object => "object",
        }
    }
}

/// The values seen at one place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// How many of each type, in the order of [`JsonKind::ALL`].
    counts: [u64; 8],
    /// What was seen of the lists' elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    elements: Option<Box<Observed>>,
    /// What was seen of the objects' members.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    members: BTreeMap<String, Member>,
}

/// A member of objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    /// The first place among its siblings that it was ever seen at.
    place: u32,
    value: Observed,
}

impl Observed {
    /// Counts a value of this type. What is in it is counted by [`Self::element`] and [`Self::member`].
    pub fn note(&mut self, kind: JsonKind) {
        self.counts[kind as usize] += 1;
    }

    /// Where an element of a list is counted. `room` is how many places may still be added; without any, what is not
    /// known yet is not told apart.
    pub fn element(&mut self, room: &mut usize) -> Option<&mut Self> {
        if self.elements.is_none() {
            *room = room.checked_sub(1)?;
        }
        Some(self.elements.get_or_insert_default())
    }

    /// Where the member of an object is counted that stands at `place` in it.
    pub fn member(&mut self, name: &str, place: u32, room: &mut usize) -> Option<&mut Self> {
        if !self.members.contains_key(name) {
            *room = room.checked_sub(1)?;
            self.members.insert(name.to_owned(), Member { place, value: Self::default() });
        }
        let member = self.members.get_mut(name)?;
        member.place = member.place.min(place);
        Some(&mut member.value)
    }

    /// Adds what was seen elsewhere.
    pub fn merge(&mut self, other: &Self, room: &mut usize) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
        if let Some(elements) = &other.elements
            && let Some(mine) = self.element(room)
        {
            mine.merge(elements, room);
        }
        for (name, member) in &other.members {
            if let Some(mine) = self.member(name, member.place, room) {
                mine.merge(&member.value, room);
            }
        }
    }

    /// How many values of a type were seen.
    pub fn count(&self, kind: JsonKind) -> u64 {
        self.counts[kind as usize]
    }

    /// How many values were seen.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What was seen of the elements of lists.
    pub fn elements(&self) -> Option<&Self> {
        self.elements.as_deref()
    }

    /// What was seen of a member of objects.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.members.get(name).map(|member| &member.value)
    }

    /// The members of objects: name, first place, and what was seen.
    pub(crate) fn members(&self) -> impl ExactSizeIterator<Item = (&str, u32, &Self)> {
        self.members.iter().map(|(name, member)| (name.as_str(), member.place, &member.value))
    }

    /// How many places are told apart below this one.
    pub fn places(&self) -> usize {
        let elements = self.elements.as_ref().map_or(0, |elements| 1 + elements.places());
        elements + self.members.values().map(|member| 1 + member.value.places()).sum::<usize>()
    }
}
