//! The members of a JSON value that no column has, as JSON text in the shape of the value: what columns have is left
//! out of it, and elements of arrays keep their places.

/// What stands around a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Brackets {
    List,
    Object,
}

impl Brackets {
    fn open(self) -> char {
        match self {
            Self::List => '[',
            Self::Object => '{',
        }
    }

    fn close(self) -> char {
        match self {
            Self::List => ']',
            Self::Object => '}',
        }
    }
}

/// The text as it grows. Values are opened before it is known whether there is anything in them.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// Without the outermost bracket at its end; empty where nothing was opened yet.
    text: String,
    /// How many members there are.
    members: usize,
}

/// Where a value was opened.
pub(crate) struct Mark {
    at: usize,
    members: usize,
    brackets: Brackets,
    is_element: bool,
}

impl Rest {
    /// Opens the value of a member. Keys are as they stand between their quotes in JSON text.
    pub(crate) fn value(&mut self, key: &str, brackets: Brackets) -> Mark {
        let mark = self.mark(brackets, false);
        self.key(key);
        self.text.push(brackets.open());
        mark
    }

    /// Opens the next element of an array.
    pub(crate) fn element(&mut self, brackets: Brackets) -> Mark {
        let mark = self.mark(brackets, true);
        self.separate();
        self.text.push(brackets.open());
        mark
    }

    /// Closes what was opened, or takes it back where there is nothing in it.
    pub(crate) fn leave(&mut self, mark: Mark) {
        if self.members > mark.members {
            self.text.push(mark.brackets.close());
            return;
        }
        self.text.truncate(mark.at);
        if mark.is_element {
            self.separate();
            self.text.push_str("null");
        }
    }

    /// Adds a member, as it stands in JSON text.
    pub(crate) fn member(&mut self, key: &str, value: &str) {
        self.key(key);
        self.text.push_str(value);
        self.members += 1;
    }

    /// The whole text, if there is anything.
    pub(crate) fn finish(mut self) -> Option<String> {
        if self.members == 0 {
            return None;
        }
        self.text.push('}');
        Some(self.text)
    }

    fn mark(&self, brackets: Brackets, is_element: bool) -> Mark {
        Mark { at: self.text.len(), members: self.members, brackets, is_element }
    }

    fn key(&mut self, key: &str) {
        self.separate();
        self.text.push('"');
        self.text.push_str(key);
        self.text.push_str("\":");
    }

    /// Before a member or an element: values end in neither of these.
    fn separate(&mut self) {
        match self.text.as_bytes().last() {
            None => self.text.push('{'),
            Some(b'{' | b'[') => {}
            Some(_) => self.text.push(','),
        }
    }
}
