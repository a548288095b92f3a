// SPDX-License-Identifier: LGPL-2.1-or-later
//! The `savevm` command. All of it is in the library target `savevm_cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    savevm_cli::main()
}
