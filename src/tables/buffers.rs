//! Memory that is used again: threads that decode and encode would wait for each other to have some.

/// The memory of a list, for the next one.
pub(super) struct Buffers<T>(Vec<T>);

impl<T> Default for Buffers<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Buffers<T> {
    /// An empty list with the memory, for items that differ in their lifetime.
    pub(super) fn list<U>(&mut self) -> Vec<U> {
        emptied(std::mem::take(&mut self.0))
    }

    /// Takes the memory of a list that is no longer needed.
    pub(super) fn keep<U>(&mut self, list: Vec<U>) {
        self.0 = emptied(list);
    }
}

fn emptied<T, U>(mut items: Vec<T>) -> Vec<U> {
    items.clear();
    // Collected in place, as items of one size are.
    let none = items.into_iter().map(|_| unreachable!("the list is empty"));
    none.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_kept_from_list_to_list() {
        let mut room = Buffers::<&'static str>::default();
        let mut list = room.list::<&str>();
        list.reserve(100);
        let (memory, capacity) = (list.as_ptr(), list.capacity());
        room.keep(list);
        let list = room.list::<&str>();
        assert_eq!((list.as_ptr(), list.capacity()), (memory, capacity));
    }
}
