//! `highwater audit`
