# The kernel refuses what the tiers refuse. Needs no microVM.
exec firelane verify seccomp
