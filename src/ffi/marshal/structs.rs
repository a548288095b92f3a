// SPDX-License-Identifier: LGPL-2.1-or-later
//! Structs that begin with their size, and enums, that come from C and go to it.

use crate::error::{Error, Result};
use std::ffi::c_int;
use std::mem::MaybeUninit;

/// A struct of the C interface that begins with its size in bytes as a `size_t` and that the caller fills in, or gives the
/// room for. Later releases add members at its end, so a program may know fewer or more of them than the library.
///
/// # Safety
/// The struct is `repr(C)`, its first member is the size, and all-zero is a valid value of it.
pub unsafe trait SizedStruct: Copy {
    /// Its name in C.
    const NAME: &'static str;
    /// Its initialiser in C.
    const INIT: &'static str;
    /// Its size in bytes up to the last member that its first release had.
    const FIRST_RELEASE: usize;
}

/// Declares structs of the C interface that begin with their size: the type, its initialiser in C, and the last member of
/// its first release.
macro_rules! sized_structs {
    ($($name:ident, $init:ident, $last:ident;)*) => {$(
        // SAFETY: the struct is `repr(C)`, begins with `size: usize`, and has only numbers, raw pointers, nullable functions
        // and enums as `MaybeUninit`, of which all-zero is valid.
        unsafe impl $crate::ffi::marshal::structs::SizedStruct for $name {
            const NAME: &'static str = stringify!($name);
            const INIT: &'static str = stringify!($init);
            const FIRST_RELEASE: usize = {
                const fn size<T, M>(_: fn(&T) -> &M) -> usize {
                    size_of::<M>()
                }
                assert!(std::mem::offset_of!($name, size) == 0);
                let end = std::mem::offset_of!($name, $last) + size(|whole: &$name| &whole.$last);
                assert!(size_of::<$name>() - end < align_of::<$name>(), "before the first release, this is the last member");
                end
            };
        }
    )*};
}
pub(crate) use sized_structs;

/// Checks the size that a caller wrote into a struct: smaller than its first release means that it was forgotten.
fn check_size<T: SizedStruct>(size: usize) -> Result<()> {
    if size >= T::FIRST_RELEASE {
        return Ok(());
    }
    let (name, init, least) = (T::NAME, T::INIT, T::FIRST_RELEASE);
    Err(Error::invalid(format!("{name}.size is {size}, expected at least {least}: initialise the struct with {init}")))
}

/// Copies a struct that the caller filled in; `None` for NULL. Members that the caller does not have stay zero, which is
/// their default.
///
/// # Safety
/// `from` must be NULL or point to a struct that is readable for the size that it begins with.
pub unsafe fn sized_struct<T: SizedStruct>(from: *const T) -> Result<Option<T>> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: the size stands first.
    let size = unsafe { from.cast::<usize>().read() };
    check_size::<T>(size)?;
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: no more is copied than both sides have, and all-zero is valid for the rest.
    unsafe {
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), size.min(size_of::<T>()));
        Ok(Some(copy.assume_init()))
    }
}

/// Fills in a struct of the caller as far as it has room; its size stays the caller's. An error for NULL and for a size
/// that is too small.
///
/// # Safety
/// `to` must be NULL or point to a struct that is writable for the size that it begins with.
pub unsafe fn give_sized<T: SizedStruct>(to: *mut T, from: &T) -> Result<()> {
    const FIRST: usize = size_of::<usize>();
    if to.is_null() {
        return Err(Error::invalid(format!("the {} is NULL", T::NAME)));
    }
    // SAFETY: the size stands first.
    let size = unsafe { to.cast::<usize>().read() };
    check_size::<T>(size)?;
    let from = std::ptr::from_ref(from).cast::<u8>();
    // SAFETY: no more is written than both sides have.
    unsafe {
        std::ptr::copy_nonoverlapping(from.add(FIRST), to.cast::<u8>().add(FIRST), size.min(size_of::<T>()) - FIRST);
    }
    Ok(())
}

/// An enum of the C interface that a caller chooses a value of. C may store any number in it, so it is taken as
/// `MaybeUninit` and read as a number.
///
/// # Safety
/// The enum is `repr(C)`: it has the size of a C `int`.
pub unsafe trait CEnum: Copy + 'static {
    /// Its name in C.
    const NAME: &'static str;
    /// All values.
    const ALL: &'static [Self];
}

/// Declares the enums of the C interface that are read from C, with all of their values.
macro_rules! c_enums {
    ($($name:ident: $($value:ident),*;)*) => {$(
        // SAFETY: the enum is `repr(C)`.
        unsafe impl $crate::ffi::marshal::structs::CEnum for $name {
            const NAME: &'static str = stringify!($name);
            const ALL: &'static [Self] = &[$(Self::$value),*];
        }
    )*};
}
pub(crate) use c_enums;

/// The number of an enum of the C interface.
fn number<E: CEnum>(value: &E) -> c_int {
    const { assert!(size_of::<E>() == size_of::<c_int>()) };
    // SAFETY: the enum has the size of an `int`, and is aligned as one.
    unsafe { std::ptr::from_ref(value).cast::<c_int>().read() }
}

/// The enumerator that C chose; an error for a number that is none.
pub fn c_enum<E: CEnum>(value: MaybeUninit<E>) -> Result<E> {
    const { assert!(size_of::<E>() == size_of::<c_int>()) };
    // SAFETY: the value comes from C or from zeroed memory, so its bytes are initialised, and any bytes are an `int`.
    let chosen = unsafe { value.as_ptr().cast::<c_int>().read() };
    let known = E::ALL.iter().copied().find(|known| number(known) == chosen);
    known.ok_or_else(|| Error::invalid(format!("{chosen} is no value of {}", E::NAME)))
}
