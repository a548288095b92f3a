# SPDX-License-Identifier: LGPL-2.1-or-later
# QEMU 5.2, for ../common/run.sh.
version=5.2
suite=bullseye
glue="older.h compressed-file.c host.c incoming.c layout-file.c listen.c older-run.c program-file.c snapshot.c xen.c"
# configure has no --without-default-features.
features=(--enable-system --enable-tools --enable-kvm --enable-gnutls --enable-fdt=system --enable-replication
          --audio-drv-list=)
for feature in bochs capstone cloop curl curses dmg docs gtk guest-agent libusb linux-aio linux-io-uring opengl parallels \
    qed rdma sdl sheepdog slirp smartcard spice tpm usb-redir user vdi virtfs virtiofsd vnc vvfat werror xen; do
    features+=("--disable-$feature")
done
unit_test=tests/test-vmstate
firmware=pc-bios
# Debian's package does not look for firmware beside the emulator.
options=(--disable-blobs "--firmwarepath=$dir/build/pc-bios")
quick_cases=(precopy/unix precopy/tcp postcopy/unix postcopy/recovery xbzrle/unix multifd/tcp/none multifd/tcp/zlib bad_dest)
cases=16  # with zstd 17
image_tests="007 015 068 091 181 194 201 203 234 262 267 280 286 300"
quick_image_tests="267 286"
raw_image_tests=
own_tests="snapshot damaged colo"
