def cut_batches(
    sizes: torch.Tensor,
    frames: Sequence[int] | torch.Tensor,
    n_atoms: int | None = None,
    n_frames: int | None = None,
    generator: torch.Generator | None = None,
) -> list[torch.Tensor]:
    """`batches` of some frames of a store: `frames` [n] are its indices, and so are those in the batches."""
    chosen = torch.as_tensor(frames, dtype=torch.int64)
    return [chosen[part] for part in batches(sizes[chosen], n_atoms, n_frames, generator)]
