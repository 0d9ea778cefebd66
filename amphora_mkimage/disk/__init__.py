"""From a tree to a bootable disk, an image file or a tar."""
