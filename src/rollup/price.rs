//! `prices.toml`: what tokens cost, by model, token class and date.

/// All prices known.
#[derive(Debug, Clone, Default)]
pub struct PriceList {}

/// Why a price list can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {}
