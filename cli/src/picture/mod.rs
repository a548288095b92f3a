// SPDX-License-Identifier: LGPL-2.1-or-later
//! Draws pictures as SVG.

pub mod chart;
pub mod scale;
pub mod svg;
pub mod timeline;
pub mod trace;
pub mod treemap;
