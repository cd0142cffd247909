//! Reuse of allocations. Without it, threads that decode and encode contend for the allocator.

/// The allocation of a list, kept for the next list.
pub(super) struct Buffers<T>(Vec<T>);

impl<T> Default for Buffers<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Buffers<T> {
    /// Returns an empty list that uses the allocation. Its items may have another lifetime.
    pub(super) fn take<U>(&mut self) -> Vec<U> {
        reused(std::mem::take(&mut self.0))
    }

    /// Takes back the allocation of a list that is no longer needed.
    pub(super) fn recycle<U>(&mut self, list: Vec<U>) {
        self.0 = reused(list);
    }
}

fn reused<T, U>(mut items: Vec<T>) -> Vec<U> {
    items.clear();
    // `collect` reuses the allocation because both item types have the same size.
    let no_items = items.into_iter().map(|_| unreachable!("the list is empty"));
    no_items.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_list_reuses_the_allocation() {
        let mut buffers = Buffers::<&'static str>::default();
        let mut list = buffers.take::<&str>();
        list.reserve(100);
        let (address, capacity) = (list.as_ptr(), list.capacity());
        buffers.recycle(list);
        let list = buffers.take::<&str>();
        assert_eq!((list.as_ptr(), list.capacity()), (address, capacity));
    }
}
