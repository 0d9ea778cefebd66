"""The amphora agent from its released packages: locked, fetched by the host's pip, installed offline in the image."""
