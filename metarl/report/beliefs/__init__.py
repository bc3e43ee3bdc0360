"""Pictures of beliefs: where an agent expects reward at moments of a trial, and what can be known there."""
