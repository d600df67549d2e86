"""The floor of HTTP: the same stack, a body in and out, and nothing in between."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Ask(BaseModel):
    """As much as a /predict holds."""

    user_id: str
    question_id: str
    model: str | None = None
    knowledge_state: bool = True


class Answer(BaseModel):
    """As much as a /predict without the vector answers."""

    p_correct: float


app = FastAPI()


@app.post("/predict")
async def predict(ask: Ask) -> Answer:
    """Answer half."""
    del ask
    return Answer(p_correct=0.5)


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
