"""A decoder with all that belongs to it: the recognizer it inverts, the channel atlas, its figures."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from xfr_plugin.base.documents import Document
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.fingerprint import check_fingerprint
from xfr_plugin.recognition.recognizer import Provenance, Recognizer
from xfr_plugin.reconstruction.network import DecoderNetwork, to_input_size
from xfr_plugin.reconstruction.regional import RegionalEvidence

__all__ = ["Decoder", "DecoderCard"]


class DecoderCard(Document):
    """Everything about a decoder but its weights. `figures` are measurements, by name.

    Attributes:
        name: of the decoder.
        recognizer: name of the recognizer that it inverts.
        recognizer_sha256: `fingerprint` of that recognizer.
        embedding_dim: length of its embedding.
        input_size: height and width of its aligned faces.
        output_size: height and width of decoded faces.
        widths: channels of the network's stages.
        provenance: where the weights come from.
        figures: measurements by name.
    """

    name: str
    recognizer: str
    recognizer_sha256: str
    embedding_dim: int = Field(gt=0, le=1 << 16)
    input_size: tuple[int, int]
    output_size: tuple[int, int] = (56, 56)
    widths: tuple[int, int, int] = (128, 64, 32)
    provenance: Provenance = Provenance()
    figures: dict[str, float | str] = Field(default={})

    def build_network(self) -> DecoderNetwork:
        """Build the network, with untrained weights."""
        return DecoderNetwork(self.embedding_dim, self.output_size, self.widths)


class Decoder(nn.Module):
    """Decodes the embeddings of one recognizer to faces.

    A decoder inverts face templates: whoever has it can make a likeness from an embedding. Treat it, and the
    embeddings, as personal data.

    Args:
        network: the trained network; put into evaluation mode.
        card: what it was trained for.
        atlas: D×h×w, where on the aligned face each channel lives; every map sums to one.
        mean_embedding: D, the mean normalised embedding of the training faces.
        mean_face: 3×H×W in [0, 1], their mean at the decoder's size.
        regional: how scores divide among the regions of the face, if that was measured.
    """

    atlas: Tensor
    mean_embedding: Tensor
    mean_face: Tensor

    def __init__(
        self,
        network: DecoderNetwork,
        card: DecoderCard,
        atlas: Tensor,
        mean_embedding: Tensor,
        mean_face: Tensor,
        regional: RegionalEvidence | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.card = card
        for name, value, start in (
            ("atlas", atlas, (card.embedding_dim,)),
            ("mean_embedding", mean_embedding, (card.embedding_dim,)),
            ("mean_face", mean_face, (3, *card.output_size)),
        ):
            if tuple(value.shape[: len(start)]) != start:
                raise InputError(f"{name} has shape {tuple(value.shape)}, expected it to start with {start}")
            self.register_buffer(name, value.float())
        self.regional = regional
        self.eval()

    def check_recognizer(self, recognizer: Recognizer) -> None:
        """Make sure that this decoder was trained for a recognizer.

        Raises:
            InputError: it was trained for another one.
        """
        card, advice = self.card, "train one with `xfr train decoder --recognizer …`"
        check_fingerprint(
            recognizer, f"decoder {card.name!r}", card.recognizer, card.recognizer_sha256, advice
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        """Decode normalised embeddings N×D to faces N×3×H×W in [0, 1], at the decoder's own size.

        Raises:
            InputError: the embeddings are not N×D with this decoder's D.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.card.embedding_dim:
            raise InputError(
                f"decoder {self.card.name!r} takes embeddings of shape N×{self.card.embedding_dim}, "
                f"got {tuple(embeddings.shape)}"
            )
        faces: Tensor = self.network(embeddings)
        return faces

    def faces(self, embeddings: Tensor) -> Tensor:
        """Decode as `forward` does, and bring the faces to the recognizer's input size."""
        return to_input_size(self(embeddings), self.card.input_size)
