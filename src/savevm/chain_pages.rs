// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the pages of a chain of snapshots are. The driver makes the list, and a lazy restore of RAM reads the pages.

use crate::channel::PositionedFile;
use crate::wire::page_runs::Pages;
use std::sync::Arc;

/// The pages of a chain.
#[derive(Debug)]
pub struct ChainPages {
    /// The files.
    pub files: Vec<PositionedFile>,
    /// All blocks.
    pub blocks: Vec<ChainBlock>,
}

/// The pages of a block.
#[derive(Debug)]
pub struct ChainBlock {
    /// Name of the block.
    pub name: String,
    /// Number of its pages.
    pub count: u64,
    /// The last copy of each page.
    pub pages: Arc<Pages>,
}
