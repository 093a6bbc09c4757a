"""Shards on the local disk: up to a limit, never wrong, and never needed."""

from nightshift.training.shard_cache import ShardCache


def test_shards_are_kept_on_disk_up_to_a_limit_and_foreign_files_make_room(ml_dataset, tmp_path):
    shards = [shard.file for shard in ml_dataset.shards]
    size = max(shard.size for shard in shards)
    folder, other = tmp_path / "cache", "f" * 64
    folder.mkdir()
    for name in (other, "a person's file"):
        (folder / name).write_bytes(bytes(size))
    cache = ShardCache(folder, int(1.2 * size), {shard.sha256 for shard in shards})
    read = [cache.read(shard) for shard in shards]
    kept = {file.name for file in folder.iterdir()} - {"a person's file"}
    assert (folder / "a person's file").exists()
    assert other not in kept
    assert kept == {max(shards, key=lambda shard: shard.size).sha256}
    (folder / kept.pop()).write_bytes(b"damaged")
    assert [cache.read(shard) for shard in shards] == read


def test_a_disk_that_takes_nothing_costs_only_speed(ml_dataset, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    cache = ShardCache(tmp_path / "file", 2**30, set())
    shard = ml_dataset.shards[0].file
    assert len(cache.read(shard)) == len(cache.read(shard)) == shard.size
    assert capsys.readouterr().out.count("set NIGHTSHIFT_CACHE") == 1
