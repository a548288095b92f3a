// SPDX-License-Identifier: LGPL-2.1-or-later
//! Output for packagers: manual pages and completions.

use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::Cli;
use crate::failure::{Context, Result, Status};

/// Writes `savevm.1` and a page for each subcommand.
pub fn man(directory: &Path) -> Result<Status> {
    std::fs::create_dir_all(directory).context(|| format!("cannot create {}", directory.display()))?;
    let mut whole = Cli::command();
    whole.build();
    let shown: Vec<_> = shown(&whole).cloned().collect();
    let names: Vec<_> = shown.iter().filter_map(Command::get_display_name).map(str::to_string).collect();
    write_page(whole, &names, directory)?;
    shown.into_iter().try_for_each(|command| write_page(command, &["savevm".into()], directory))?;
    Ok(Status::Success)
}

/// Returns the subcommands for users.
fn shown(whole: &Command) -> impl Iterator<Item = &Command> {
    whole.get_subcommands().filter(|command| !command.is_hide_set())
}

/// Writes one page, with references to the others.
fn write_page(command: Command, see_also: &[String], directory: &Path) -> Result<()> {
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (has_commands, version) = (command.has_subcommands(), env!("CARGO_PKG_VERSION"));
    let man = Man::new(command).source(format!("savevm {version}")).manual("savevm");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    after.split("\n\n").try_for_each(|paragraph| write_section(paragraph, &mut page))?;
    let see_also: Vec<_> = see_also.iter().map(|name| format!("\\fB{}\\fR(1)", literal(name))).collect();
    writeln!(page, ".SH \"SEE ALSO\"\n{}", see_also.join(",\n"))?;
    let path = directory.join(man.get_filename());
    std::fs::write(&path, page).context(|| format!("cannot write {}", path.display()))
}

/// Writes a paragraph of the help as a section. Its first line is the heading; the other lines are kept.
fn write_section(paragraph: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let Some((heading, lines)) = paragraph.split_once('\n') else { return Ok(()) };
    writeln!(page, ".SH \"{}\"\n.nf", heading.trim_end_matches(':').to_uppercase())?;
    // The zero-width character prevents a line from being read as a request.
    lines.lines().try_for_each(|line| writeln!(page, "\\&{}", literal(line.trim_start())))?;
    writeln!(page, ".fi")
}

/// Returns text that is printed literally.
fn literal(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga")
}

/// Writes a shell's completions to standard output.
pub fn completions(shell: Shell) -> Result<Status> {
    let whole = Cli::command();
    // Without the subcommands for packagers, which would be completed as well.
    let mut offered = Command::new("savevm").version(env!("CARGO_PKG_VERSION")).disable_help_subcommand(true);
    offered = offered.args(whole.get_arguments()).subcommands(shown(&whole));
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut offered, "savevm", &mut text);
    io::stdout().write_all(&text)?;
    Ok(Status::Success)
}
