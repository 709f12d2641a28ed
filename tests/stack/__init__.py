"""The servers and clients the black-box tests run against: downloaded, pinned, started and ended here.

Only the standard library is used by what installs and starts servers, so that it runs before anything is installed.
`clients` and `records` use the packages of ../requirements.txt and run in the environment `setup` makes.
"""
