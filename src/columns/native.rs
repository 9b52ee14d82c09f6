//! ClickHouse's Native format: one block.
