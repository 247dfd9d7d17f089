"""The distribution beside this file is no part of unikit: its tests run where it is installed."""

collect_ignore = ["stack2"]
