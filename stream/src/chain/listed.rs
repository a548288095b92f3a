// SPDX-License-Identifier: LGPL-2.1-or-later
//! Opens a chain by the lists of pages of its files, without reading the pages.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::list::{Found, ListedPages};
use super::{Chain, Files, Layer, ReadAt, next_file, text};
use crate::budget::Budget;
use crate::inspect::{Options, Stream, Unwatched, io_text, read_whole};

/// An incremental file, and the pages of its parent if that is a full snapshot.
struct Listed<F> {
    layer: Layer<F>,
    stream: Stream,
    head: Vec<u8>,
    parent: Option<ListedPages>,
}

impl<F: ReadAt> Listed<F> {
    /// Reads the list and the devices of a file.
    fn read(path: PathBuf, file: F, budget: &mut Budget) -> Result<Self, String> {
        let named = |error: String| format!("{}: {error}", text(&path));
        let found = Found::read(&file, budget).map_err(|error| named(io_text(&error)))?;
        let found = found.ok_or_else(|| named(super::NO_LIST.to_owned()))?;
        let parts = found.parts().map_err(named)?;
        let pages = ListedPages::decode(parts.pages, found.end, budget).map_err(named)?;
        let end = parts.link.parent.length;
        let parent = parts.parent.map(|pages| ListedPages::decode(pages, end, budget)).transpose().map_err(named)?;
        let head = parts.head(&file, budget).map_err(named)?;
        let options = Options { budget: Budget::new(budget.left() / 2), ..Options::default() };
        let stream = read_whole(&head, options, &mut Unwatched).map_err(|error| named(io_text(&error)))?;
        if let Some(damage) = &stream.damage {
            return Err(named(damage.to_string()));
        }
        let (identity, link, configuration) = (found.identity, Some(parts.link), stream.configuration.clone());
        let ListedPages { mapped, page_size, blocks } = pages;
        let layer = Layer { path, file, identity, link, configuration, blocks, page_size, mapped, parent_pages: None };
        Ok(Self { layer, stream, head, parent })
    }
}

impl<F: ReadAt> Chain<F> {
    /// Opens an incremental snapshot and its ancestors without reading their pages. Checks the lists of pages, the devices, and
    /// that all files are there, have their lengths and are of the same machine. The content of each page must be compared with
    /// its hash when it is read. Only [`FlatForm::WithoutPages`](super::FlatForm) can be read from it.
    ///
    /// A full snapshot whose pages its child does not list is read as a whole.
    pub fn open_by_lists(
        files: &mut impl Files<File = F>,
        path: &Path,
        budget: &mut Budget,
    ) -> Result<Arc<Self>, String> {
        let (mut layers, mut numbers, mut youngest) = (Vec::<Layer<F>>::new(), Vec::new(), None);
        let mut next = Some((path.to_owned(), None::<ListedPages>));
        while let Some((path, pages)) = next.take() {
            let file = next_file(files, &path, &layers, &mut numbers)?;
            let layer = match (pages, layers.last()) {
                (Some(pages), Some(child)) => Self::full_parent(path, file, pages, child)?,
                (None, Some(child)) if super::is_full(&path, &file)? => {
                    Layer::read(path, file, Some(child.page_size), budget)?.0
                }
                _ => {
                    let Listed { layer, stream, head, parent } = Listed::read(path, file, budget)?;
                    youngest.get_or_insert((stream, head));
                    next = layer.parent_path().map(|path| (path, parent));
                    layer
                }
            };
            if let Some(child) = layers.last() {
                child.check_parent(&layer)?;
            }
            layers.push(layer);
        }
        let (stream, head) = youngest.ok_or("there is no incremental snapshot")?;
        Self::join(layers, stream, Some(head), budget)
    }

    /// A full snapshot whose pages are listed by its child. Only its length is compared: its pages have hashes.
    fn full_parent(path: PathBuf, file: F, pages: ListedPages, child: &Layer<F>) -> Result<Layer<F>, String> {
        let length = file.length().map_err(|error| format!("{}: {}", text(&path), io_text(&error)))?;
        let mut identity = child.link.as_ref().map(|link| link.parent).unwrap_or_default();
        if length != identity.length {
            (identity.length, identity.hash) = (length, [0; 16]);
        }
        let ListedPages { mapped, page_size, blocks } = pages;
        // The machine was compared when the child was saved.
        let configuration = child.configuration.clone();
        Ok(Layer { path, file, identity, link: None, configuration, blocks, page_size, mapped, parent_pages: None })
    }
}
