"""One module a distribution: where its root filesystem comes from and how its parts are called."""
