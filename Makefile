# The same targets for people, pre-commit and CI.
.PHONY: check integration
check:
	script/test --fast
integration:
	script/test
