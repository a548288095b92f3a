# SPDX-License-Identifier: LGPL-2.1-or-later
# Makes sure that the tools are there and calls meson and cargo, which are the real build.

BUILD ?= build

.PHONY: all demo test clean
all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

demo: all
	examples/minivmm/demo.sh $(BUILD)/examples/minivmm/minivmm

test: all
	meson test -C $(BUILD) --print-errorlogs

$(BUILD)/build.ninja:
	./build-aux/need-tools.sh
	meson setup $(BUILD)

clean:
	rm -rf $(BUILD)
