// SPDX-License-Identifier: LGPL-2.1-or-later
//! Structs and enums of the C interface that both the exported functions and the code below them use.

pub mod abi;
pub mod channel_table;
pub mod error_info;
pub mod handler_table;
pub mod inspect_items;
pub mod ram_tables;
