FROM scratch
COPY bin/isthmus /isthmus
ENTRYPOINT ["/isthmus"]
