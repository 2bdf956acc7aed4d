process WSISAMQUPATH_SEGMENT {
    tag "${meta.id}"
    label 'process_medium'

    // Made from the Dockerfile of the repository: no registry has it.
    container "wsisam-qupath:latest"

    input:
    tuple val(meta), path(slide), path(prompts)

    output:
    tuple val(meta), path("${prefix}.{geojson,geojson.gz,parquet}"), emit: outlines
    tuple val(meta), path("${prefix}.status.json")                 , emit: status
    tuple val(meta), path("${prefix}.labels.ome.tif")              , emit: labels, optional: true
    path "versions.yml"                                            , emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    // A table of one slide, so that its status says what `batch --from` asks for.
    def options = ['mpp', 'points', 'object-size', 'simplify', 'min-area', 'as', 'candidates']
    def given = options.findAll { option -> meta[option] }
    def columns = (['slide', 'prompts', 'name'] + given).join(',')
    def values = [slide.name, prompts.name, prefix] + given.collect { option -> meta[option] }
    def cells = values.collect { value -> '"' + "${value}".replace('"', '""') + '"' }.join(',')
    """
    cat <<'END_TABLE' > table.csv
    ${columns}
    ${cells}
    END_TABLE

    wsisam-qupath segment \\
        --table table.csv \\
        --output . \\
        ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        wsisam-qupath: \$(wsisam-qupath --version | sed 's/.* //')
    END_VERSIONS
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch "${prefix}.geojson" "${prefix}.status.json"

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        wsisam-qupath: stub
    END_VERSIONS
    """
}
