# SPDX-License-Identifier: LGPL-2.1-or-later
# Makes sure that the tools are there and calls meson and cargo, which are the real build. It switches all optional parts on,
# which meson's defaults leave out, so that the tests test them.

BUILD ?= build

.PHONY: all demo test headers clean
all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

demo: all
	examples/minivmm/demo.sh $(BUILD)/examples/minivmm/minivmm

test: all
	meson test -C $(BUILD) --print-errorlogs

$(BUILD)/build.ninja:
	./build-aux/need-tools.sh
	meson setup $(BUILD) -Dtls=enabled

# Writes the generated headers under include/ anew.
headers:
	SAVEVM_UPDATE_HEADERS=1 cargo test --quiet --locked --features headers --test headers

clean:
	rm -rf $(BUILD)
