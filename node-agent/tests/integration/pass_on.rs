//! [`pass_on`]: what stores of tests have in common.

/// Calls of a `ChunkStore` that a test's store passes on as they are to the store in its field: `pass_on!(store: touch sync);`.
macro_rules! pass_on {
    ($inner:tt: $($call:ident)*) => { $(pass_on!(@$call $inner);)* };
    (@put $inner:tt) => {
        fn put(
            &self,
            round: u64,
            records: &[storage_core::Record],
        ) -> Result<storage_core::store::PutSummary, storage_core::StoreError> {
            self.$inner.put(round, records)
        }
    };
    (@touch $inner:tt) => {
        fn touch(&self, round: u64, names: &[storage_core::ObjectName]) -> Result<Vec<bool>, storage_core::StoreError> {
            self.$inner.touch(round, names)
        }
    };
    (@remove $inner:tt) => {
        fn remove(&self, below: u64, names: &[storage_core::ObjectName]) -> Result<Vec<Option<u64>>, storage_core::StoreError> {
            self.$inner.remove(below, names)
        }
    };
    (@sync $inner:tt) => {
        fn sync(&self) -> Result<(), storage_core::StoreError> {
            self.$inner.sync()
        }
    };
    (@get $inner:tt) => {
        fn get(&self, name: &storage_core::ObjectName) -> Result<Option<storage_core::Record>, storage_core::StoreError> {
            self.$inner.get(name)
        }
    };
    (@find $inner:tt) => {
        fn find(&self, name: &storage_core::ObjectName) -> Result<Option<storage_core::store::Listed>, storage_core::StoreError> {
            self.$inner.find(name)
        }
    };
    (@list $inner:tt) => {
        fn list(
            &self,
            after: Option<&storage_core::ObjectName>,
            count_max: usize,
        ) -> Result<Vec<storage_core::store::Listed>, storage_core::StoreError> {
            self.$inner.list(after, count_max)
        }
    };
    (@usage $inner:tt) => {
        fn usage(&self) -> storage_core::store::Usage {
            self.$inner.usage()
        }
    };
    (@take_bad_copies $inner:tt) => {
        fn take_bad_copies(&self) -> Vec<storage_core::store::BadCopy> {
            self.$inner.take_bad_copies()
        }
    };
}
pub(crate) use pass_on;
