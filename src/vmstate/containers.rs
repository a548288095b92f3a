// SPDX-License-Identifier: LGPL-2.1-or-later
//! Queues, lists and trees of structures: a byte 1 before each element, a byte 0 after the last
//! (QEMU 7.2, `migration/vmstate-types.c`).

use super::io::Io;
use super::load::{check_version, load_state};
use super::model::{Description, Fresh, Item, Kind, State};
use super::record::Recorder;
use super::save::save_state;
use super::trace;
use crate::error::size;

/// Writes a tail queue or a list.
pub(super) fn save_list<I: Item>(io: &Io<'_>, item: &I, kind: Kind, recorder: Option<&Recorder>) -> i32 {
    let Some(description) = item.element_description() else {
        return no_description(io);
    };
    let version = description.version();
    match kind {
        Kind::TailQueue => trace::queue(io, "put_qtailq", item, format_args!("v{version}")),
        _ => trace::list(io, "put_qlist", item, Some(version)),
    }
    for (at, element) in item.elements().enumerate() {
        io.file.put_byte(1);
        let ret = save_state(io, element, element.description().version(), recorder);
        if ret != 0 {
            return io.in_path(ret, format!("[{at}]"));
        }
    }
    io.file.put_byte(0);
    match kind {
        Kind::TailQueue => trace::queue(io, "put_qtailq_end", item, format_args!("end")),
        _ => trace::list(io, "put_qlist_end", item, None),
    }
    0
}

#[cold]
fn no_description(io: &Io<'_>) -> i32 {
    io.fail(libc::EINVAL, "a container without a description of its elements")
}

/// Returns whether the elements of all containers of the stream, this one included, are within the limit.
fn may_keep<F: Fresh>(io: &Io<'_>, fresh: &F) -> bool {
    /// An allocator's overhead per allocation, in bytes.
    const OVERHEAD: usize = 16;
    io.file.charge(fresh.size().saturating_add(OVERHEAD), io.limits.allocation)
}

#[cold]
fn over_limit(io: &Io<'_>) -> i32 {
    let (sum, limit) = (size(io.file.allocated() as u64), size(io.limits.allocation as u64));
    io.fail(libc::EINVAL, format!("another element after {sum} before, at most {limit} allowed"))
}

/// Loads the elements of a list. `insert` receives each and returns whether it inserted it.
fn load_elements<I: Item>(io: &Io<'_>, item: &I, mut insert: impl FnMut(I::Fresh) -> bool) -> i32 {
    let Some(description) = item.element_description() else {
        return no_description(io);
    };
    let version = item.element_version();
    let ret = check_version(io, &description, version);
    if ret != 0 {
        return ret;
    }
    let mut count = 0;
    while io.file.get_byte() != 0 {
        if count == io.limits.list_elements {
            return io.fail(libc::EINVAL, format!("more than {count} elements"));
        }
        let Some(fresh) = item.fresh() else {
            return io.fail(libc::ENOMEM, "no memory for an element");
        };
        if !may_keep(io, &fresh) {
            return over_limit(io);
        }
        let ret = load_state(io, fresh.state(), version);
        if ret != 0 {
            return io.in_path(ret, format!("[{count}]"));
        }
        if !insert(fresh) {
            return io.fail(libc::EINVAL, "the queue was not initialised");
        }
        count += 1;
    }
    0
}

/// Loads a tail queue and appends its elements to the existing ones.
pub(super) fn load_tail_queue<I: Item>(io: &Io<'_>, item: &I) -> i32 {
    let version = item.element_version();
    trace::queue(io, "get_qtailq", item, format_args!("v{version}"));
    let ret = load_elements(io, item, |fresh| item.append(fresh));
    trace::queue(io, "get_qtailq_end", item, format_args!("end/{ret}"));
    ret
}

/// Loads a list. The first element is inserted at the head, each other one after its predecessor.
pub(super) fn load_list<I: Item>(io: &Io<'_>, item: &I) -> i32 {
    let mut previous = None;
    trace::list(io, "get_qlist", item, Some(item.element_version()));
    let ret = load_elements(io, item, |fresh| {
        previous = Some(item.insert_after(previous, fresh));
        true
    });
    if ret == 0 {
        trace::list(io, "get_qlist_end", item, None);
    }
    ret
}

#[cold]
fn no_trees(io: &Io<'_>) -> i32 {
    io.fail(libc::ENOSYS, "the host has no operations for trees")
}

/// Writes a tree: the number of nodes, then the key and value of each.
pub(super) fn save_tree<I: Item>(io: &Io<'_>, item: &I, recorder: Option<&Recorder>) -> i32 {
    let Some(tree) = item.tree() else {
        return io.fail(libc::EINVAL, "a null pointer to a tree");
    };
    let Some(count) = io.host.tree_count(tree) else {
        return no_trees(io);
    };
    trace::tree(io, "put_gtree", item, format_args!("nnodes={count}"));
    io.file.put_be32(count);
    let mut ret = 0;
    let visited = io.host.tree_foreach(tree, &mut |key, value| {
        io.file.put_byte(1);
        if item.has_direct_keys() {
            io.file.put_be64(key.address() as usize as u64);
        } else {
            ret = save_node(io, item.key_state(key), recorder);
        }
        if ret == 0 {
            ret = save_node(io, item.value_state(value), recorder);
        }
        ret != 0
    });
    if visited.is_none() {
        return no_trees(io);
    }
    io.file.put_byte(0);
    trace::tree(io, "put_gtree_end", item, format_args!("{ret}"));
    ret
}

fn save_node<S: State>(io: &Io<'_>, node: Option<S>, recorder: Option<&Recorder>) -> i32 {
    match node {
        Some(node) => save_state(io, node, node.description().version(), recorder),
        None => no_description(io),
    }
}

/// Loads a tree and inserts its nodes. Their number must be the announced one.
pub(super) fn load_tree<I: Item>(io: &Io<'_>, item: &I) -> i32 {
    let version = item.element_version();
    let (Some(tree), Some(value)) = (item.tree(), item.element_description()) else {
        return io.fail(libc::EINVAL, "a tree without memory or description");
    };
    if io.host.tree_count(tree).is_none() {
        return no_trees(io);
    }
    if let Some(key) = item.key_description() {
        let ret = check_version(io, &key, version);
        if ret != 0 {
            return ret;
        }
    }
    let ret = check_version(io, &value, version);
    if ret != 0 {
        return ret;
    }
    // QEMU reads the number as an int. A negative number announces no nodes.
    let announced = io.file.get_be32() as i32;
    trace::tree(io, "get_gtree", item, format_args!("nnodes={announced}"));
    let ret = load_nodes(io, item, version, tree, announced);
    trace::tree(io, "get_gtree_end", item, format_args!("{ret}"));
    ret
}

fn load_nodes<I: Item>(io: &Io<'_>, item: &I, version: i32, tree: super::HostObject, announced: i32) -> i32 {
    let mut count = 0;
    while io.file.get_byte() != 0 {
        if count >= announced {
            return io.fail(libc::EINVAL, format!("more nodes than the {announced} that were announced"));
        }
        if count as usize >= io.limits.list_elements {
            return io.fail(libc::EINVAL, format!("more than {count} nodes"));
        }
        let ret = load_node(io, item, version, tree);
        if ret != 0 {
            return io.in_path(ret, format!("[{count}]"));
        }
        count += 1;
    }
    if count != announced {
        return io.fail(libc::EINVAL, format!("expected {announced} nodes as announced, got {count}"));
    }
    0
}

fn load_node<I: Item>(io: &Io<'_>, item: &I, version: i32, tree: super::HostObject) -> i32 {
    let direct = item.has_direct_keys().then(|| io.file.get_be64());
    let key = if direct.is_none() { item.fresh_key() } else { None };
    if let Some(key) = &key {
        if !may_keep(io, key) {
            return over_limit(io);
        }
        let ret = load_state(io, key.state(), version);
        if ret != 0 {
            return io.in_path(ret, "key");
        }
    }
    let Some(value) = item.fresh() else {
        return io.fail(libc::ENOMEM, "no memory for a node");
    };
    if !may_keep(io, &value) {
        return over_limit(io);
    }
    let ret = load_state(io, value.state(), version);
    if ret != 0 {
        return io.in_path(ret, "value");
    }
    let key = match (direct, key) {
        (Some(number), _) => super::HostObject::new(std::ptr::without_provenance_mut(number as usize)),
        (None, Some(key)) => key.into_object(),
        (None, None) => return io.fail(libc::ENOMEM, "no memory for a key"),
    };
    match io.host.tree_insert(tree, key, value.into_object()) {
        Some(()) => 0,
        None => no_trees(io),
    }
}
