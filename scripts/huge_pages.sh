# Sourced by scripts that compute on a CPU: glibc takes memory in pages of 2 MB where Linux lets it, and keeps it.
# All weights are read again for every word. In pages of 4 kB that nearly doubled the time of a round on a virtual
# machine (docs/speed.md). Other C libraries take no notice, and what is set already stays.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=4294967296:glibc.malloc.top_pad=67108864}"
